"""What workspaces know, what queries ask, whose branch answers follow: as by hand, alike on both systems."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float, Integer

from agents.codebook import Codebook
from agents.policies.intervened import Change, Intervened, Patch, Steer
from agents.prior import draw_latent, gaussian, tree
from agents.step import System
from agents.transformer.export import export
from agents.transformer.model import Architecture, Transformer
from analysis.measures.interventions import Turn, branch_directions, followed, steering_curve
from analysis.measures.probes import (
    alignment,
    nearest_atoms,
    node_axes,
    probe_accuracy,
    query_spread,
    relative_branches,
)
from analysis.plots.function_vectors import (
    patching_map,
    probe_map,
    query_alignment,
    steering_curves,
)
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines import Engine
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.studies.activations import (
    agents_activations,
    agents_estimates,
    module_activations,
    module_estimates,
)
from runner.studies.base import parameters
from runner.studies.function_vectors import measure_function_vectors
from runner.training import train
from tests.agents.test_policies import BASE, VARIANTS, random_transformer
from tests.claims.test_transformer import random_model
from topology.mixing import Mixing

if TYPE_CHECKING:
    from runner.engines.ray import RayEngine

PROMPTS = range(30, 60)
SWAP = np.roll(np.arange(len(PROMPTS)), -1)
CHANGES: dict[str, Change] = {
    "all patched": Patch(SWAP),
    "one patched": Patch(SWAP, np.array([7])),
    "all steered": Steer(np.ones((6, 1))),
    "two steered": Steer(np.ones((6, 1)), np.array([0, 2])),
}
# A bound of 4.5 standard errors is exceeded by chance in 7e-6 of comparisons (two-sided normal tail).
SIGMAS = 4.5


def asked_codes(
    system: System, mixing: Mixing, prompts: range, engine: Engine | None = None
) -> Integer[np.ndarray, "layers N K B"]:
    """The code that each token asks about on each channel, round by round."""
    outcomes = (engine or LocalEngine()).play(system, mixing, prompts, messages=True)
    return np.stack([outcome.sent.codes for outcome in outcomes if outcome.sent is not None])


def directions_of(
    codes: Integer[np.ndarray, "layers N K B"], codebook: Codebook
) -> Float[np.ndarray, "layers N K d B"]:
    """The queries of a policy that asks by codes: the directions that its codes stand for."""
    return np.moveaxis(codebook.directions[codes], -1, -2)


def assembled(name: str, graph: str = "complete") -> tuple[System, Mixing]:
    experiment = BASE.with_values({**VARIANTS[name], "graph.kind": graph})
    built = build(experiment)
    if built.entry.is_trained:
        weights = random_transformer(built.prior.dim, experiment.channel.channels, experiment.run.rounds)
        built = built.with_weights(weights)
    return built.system, built.mixing


def both(graph: str) -> tuple[Transformer, System, Mixing]:
    """A random transformer of two heads, and the agents that run it."""
    system, mixing = assembled("learned", graph)
    model = random_model(Architecture(7, 3, heads=2, width=6, hidden=10), seed=4)
    return model, replace(system, policy=export(model)), mixing


# Probes


@pytest.mark.statistical
@pytest.mark.parametrize("branching", [2, 3])
def test_a_scale_that_is_coded_from_its_layer_on_gives_a_triangle(branching: int) -> None:
    """18 comparisons with chance in all, each false in 7e-6 of samples."""
    generator = np.random.default_rng(branching)
    labels = generator.integers(0, branching, size=(900, 3))
    workspaces = generator.normal(size=(4, 8, 900))
    rotation = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    for layer in range(1, 4):
        for level in range(layer):  # branches at corners of a simplex, beside noise, turned
            corners = np.eye(branching) - 1 / branching
            workspaces[layer, 2 * level : 2 * level + 2] = corners[labels[:, level], :2].T
        workspaces[layer] = rotation @ workspaces[layer]
    rows = probe_accuracy(workspaces, labels, fitted=500)
    for row in rows.itertuples():
        if row.layer >= row.scale:
            assert (row.value, row.se) == (1.0, 0.0)
        else:
            assert abs(row.value - 1 / branching) < SIGMAS * (1 / branching / 400) ** 0.5
        assert abs(row.control - 1 / branching) < 0.1


def test_the_probe_is_the_ridge_regression_of_the_indicators() -> None:
    generator = np.random.default_rng(0)
    points, labels = generator.normal(size=(1, 5, 60)), generator.integers(0, 3, size=(60, 1))
    points[0, 0] += labels[:, 0]
    known, ridge = 40, 0.2
    scaled = (points[0] - points[0, :, :known].mean(axis=1, keepdims=True)).T
    scaled = scaled / scaled[:known].std(axis=0)
    wanted = np.eye(3)[labels[:known, 0]]
    stacked = np.vstack([scaled[:known], np.sqrt(ridge * known) * np.eye(5)])
    targets = np.vstack([wanted - wanted.mean(axis=0), np.zeros((5, 3))])
    weights = np.linalg.lstsq(stacked, targets)[0]
    read = (scaled[known:] @ weights + wanted.mean(axis=0)).argmax(axis=1)
    (row,) = probe_accuracy(points, labels, known, ridge).to_dict("records")
    right = read == labels[known:, 0]
    assert row["value"] == right.mean()
    assert row["se"] == pytest.approx(right.std(ddof=1) / np.sqrt(20))
    assert row["chance"] == (labels[known:, 0] == np.bincount(labels[:known, 0]).argmax()).mean()


def test_branches_are_counted_among_siblings() -> None:
    prior = tree(3, 3, 0.8, 26)
    relative = relative_branches(prior.branches)
    places = [(9 * a + 3 * b + c, (a, b, c)) for a in range(3) for b in range(3) for c in range(3)]
    assert all(tuple(relative[leaf]) == path for leaf, path in places)


# Queries


def test_alignment_is_the_squared_length_of_the_projection_on_the_node() -> None:
    prior = tree(2, 3, 0.8, 9, directions="random", seed=3)  # two directions for each of 1 + 3 nodes
    generator = np.random.default_rng(1)
    queries = generator.normal(size=(2, 2, 9, 5))
    queries /= np.linalg.norm(queries, axis=2, keepdims=True)
    paths = generator.integers(0, 9, size=(2, 5))
    rows = alignment(queries, paths, prior).set_index(["layer", "scale"])
    for layer in range(2):
        for scale, first in ((1, np.zeros(5, dtype=int)), (2, 2 + 2 * (paths[layer] // 3))):
            for shift, column in ((0, "value"), (1, "control")):
                asked = [queries[layer, :, :, (b + shift) % 5] for b in range(5)]
                projected = [asked[b] @ prior.axes[first[b] : first[b] + 2].T for b in range(5)]
                by_prompt = [(part**2).sum() / 2 for part in projected]
                assert rows.loc[(layer + 1, scale), column] == pytest.approx(np.mean(by_prompt))


def believed(system: System, mixing: Mixing, prompts: range) -> np.ndarray:
    return nearest_atoms(agents_estimates(system, mixing, prompts)[:-1, -1], system.prior)


@pytest.mark.statistical
def test_adaptive_agents_ask_along_the_node_that_they_have_come_to() -> None:
    """Two comparisons of a control with 2^(1-h), each false in 7e-6 of samples."""
    experiment = Experiment().with_values({"task.tokens": 64, "run.rounds": 3})
    built, prompts = build(experiment), range(400)
    prior, mixing, system = built.prior, built.mixing, built.system
    codes = asked_codes(system, mixing, prompts)
    assert codes.dtype == np.uint8 and codes.shape == (3, 64, 1, 400)
    queries = directions_of(codes, system.policy.inference.codebook)[:, -1]
    true = np.broadcast_to(draw_latent(prior, system.seed, prompts).atom, (3, 400))
    sure = (prior.branches[believed(system, mixing, prompts)] == prior.branches[true])[2, :, :2].all(axis=1)
    assert sure.mean() > 0.9  # both coarse scales are resolved when the third is asked
    for paths in (true, believed(system, mixing, prompts)):
        rows = alignment(queries[..., sure], paths[:, sure], prior).set_index(["layer", "scale"])
        for scale in (1, 2, 3):
            row = rows.loc[(scale, scale)]
            assert row["value"] == pytest.approx(1.0)
            assert abs(row["control"] - 2.0 ** (1 - scale)) <= SIGMAS * row["control_se"] + 1e-12
    spread = query_spread(queries[..., sure])["value"].to_numpy()
    assert spread[0] == pytest.approx(0.0, abs=1e-12)
    assert 0.4 < spread[1] < 0.5 + 1e-12 < spread[2] < 0.75 + 1e-12


def test_queries_that_do_not_adapt_equal_their_control() -> None:
    system, mixing = assembled("static")
    codes = asked_codes(system, mixing, PROMPTS)
    queries = directions_of(codes, system.policy.inference.codebook)[:, -1]
    rows = alignment(queries, believed(system, mixing, PROMPTS)[: len(queries)], system.prior)
    assert (rows["value"] == rows["control"]).all() and not rows[["gain", "gain_se"]].any(axis=None)
    assert query_spread(queries)["value"].abs().max() < 1e-12


def test_the_spread_does_not_see_signs_and_is_largest_for_isotropic_queries() -> None:
    generator = np.random.default_rng(2)
    line = generator.normal(size=(5, 1)) * generator.choice([-1, 1], size=(1, 50))
    axes = np.tile(np.eye(5), 10)
    queries = np.stack([line / np.linalg.norm(line, axis=0), axes])[:, None]
    assert query_spread(queries)["value"].tolist() == pytest.approx([0.0, 0.8], abs=1e-12)


# Interventions on agents


@pytest.mark.parametrize("graph", ["complete", "causal"])
@pytest.mark.parametrize("name", ["learned", "adaptive, two channels", "jitter", "gradient", "static"])
def test_a_prompt_patched_with_itself_changes_no_bit(name: str, graph: str) -> None:
    system, mixing = assembled(name, graph)
    alone = agents_estimates(system, mixing, PROMPTS)
    for layer in range(system.rounds + 1):
        patch = Patch(np.arange(len(PROMPTS)), np.array([3]) if layer == 1 else None)
        np.testing.assert_array_equal(agents_estimates(system, mixing, PROMPTS, layer, patch), alone)


@pytest.mark.parametrize("name", ["learned", "adaptive, two channels", "jitter"])
def test_a_patch_at_the_last_layer_gives_the_donors_answer(name: str) -> None:
    system, mixing = assembled(name, "causal")
    alone, last = agents_estimates(system, mixing, PROMPTS), system.rounds
    patched = agents_estimates(system, mixing, PROMPTS, last, Patch(SWAP))
    np.testing.assert_array_equal(patched[-1], alone[-1][..., SWAP])
    np.testing.assert_array_equal(patched[:-1], alone[:-1])
    one = agents_estimates(system, mixing, PROMPTS, last, Patch(SWAP, np.array([5])))
    np.testing.assert_array_equal(one[-1, 5], alone[-1, 5][..., SWAP])
    np.testing.assert_array_equal(np.delete(one, 5, axis=1), np.delete(alone, 5, axis=1))


def test_a_patch_goes_on_with_the_prompts_own_tokens() -> None:
    """By the protocol's own calls: the donors' workspaces, then emit with the receiver's tokens."""
    from agents.step import Sent, draw_block, step
    from runner.engines.base import hearing, rows_of

    system, mixing = assembled("learned")
    positions = np.arange(mixing.tokens)
    place = draw_block(system, positions, PROMPTS)
    first = step(system, place, None, None, None, 0)
    assert first.sent is not None
    heard = hearing(rows_of(mixing), first.sent, system.policy.codes, positions)(positions)
    donated = step(system, place, first.state, first.sent, heard, 1).state[..., SWAP]
    said = system.policy.emit(donated, place.tokens, 2)
    noiseless = replace(system, channel=replace(system.channel, noise=0.0))
    changed = Intervened(system.policy, 1, Patch(SWAP))
    after = step(replace(noiseless, policy=changed), place, changed.start(place.tokens), first.sent, heard, 1)
    assert isinstance(after.sent, Sent)
    np.testing.assert_array_equal(after.sent.wire, system.channel.encode(said.values).wire)


def test_a_patch_reaches_only_those_who_hear_it() -> None:
    system, mixing = assembled("learned", "causal")
    alone = agents_estimates(system, mixing, PROMPTS)
    patched = agents_estimates(system, mixing, PROMPTS, 1, Patch(SWAP, np.array([6])))
    np.testing.assert_array_equal(patched[:, :6], alone[:, :6])
    assert (patched[-1, 6:] != alone[-1, 6:]).any(axis=(1, 2)).all()


def test_steering_by_nothing_changes_nothing() -> None:
    system, mixing = assembled("learned")
    alone = agents_estimates(system, mixing, PROMPTS)
    still = Steer(np.zeros((6, 1)))
    np.testing.assert_array_equal(agents_estimates(system, mixing, PROMPTS, 2, still), alone)
    moved = Steer(np.ones((6, len(PROMPTS))))
    assert (agents_estimates(system, mixing, PROMPTS, 2, moved) != alone)[2:].all(axis=(1, 2)).all()


@pytest.mark.ray
def test_ray_agents_are_patched_alike(ray_engine: "RayEngine") -> None:
    ray_engine.tokens_per_actor = 4
    for name, change in (("learned", Steer(np.ones((6, 1)))), ("adaptive", Patch(SWAP, np.array([1, 6])))):
        system, mixing = assembled(name, "causal")
        expected = agents_estimates(system, mixing, PROMPTS, 1, change)
        np.testing.assert_array_equal(
            agents_estimates(system, mixing, PROMPTS, 1, change, ray_engine), expected
        )


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="it cannot be patched"):
        agents_estimates(*assembled("gossip"), PROMPTS, 1, Patch(SWAP))
    for layer, tokens, words in (
        (9, None, "policy.round = 9"),
        (-1, None, "layer = -1"),
        (1, [1, 50], "positions from 0 to"),
    ):
        patch = Patch(SWAP, None if tokens is None else np.array(tokens))
        with pytest.raises(UsageError, match=words):
            agents_estimates(*assembled("learned"), PROMPTS, layer, patch)
        with pytest.raises(UsageError, match=words):
            module_estimates(*both("complete"), PROMPTS, layer, patch)
    with pytest.raises(UsageError, match="20 donors, one for each prompt"):
        agents_estimates(*assembled("learned"), range(20), 1, Patch(SWAP))
    with pytest.raises(UsageError, match="layer = None"):
        agents_estimates(*assembled("learned"), PROMPTS, None, Patch(SWAP))
    with pytest.raises(TypeError, match="Adaptive has no workspace vector"):
        agents_activations(*assembled("adaptive"), PROMPTS)
    with pytest.raises(ValueError, match="from 2 to 8, got 9"):
        probe_accuracy(np.zeros((1, 2, 10)), np.zeros((10, 1), dtype=int), fitted=9)
    with pytest.raises(ValueError, match="no branches"):
        node_axes(gaussian(3))
    with pytest.raises(ValueError, match="no prompt takes branch 1 at node 1"):
        branch_directions(np.zeros((2, 3)), np.array([0, 1, 2]), tree(2, 2, 0.8, 3), Turn(2))


# The torch module and the agents


@pytest.mark.parametrize("graph", ["complete", "causal"])
def test_the_module_and_its_agents_have_the_same_workspaces_and_queries(graph: str) -> None:
    model, system, mixing = both(graph)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torched = module_activations(model, system, mixing, PROMPTS)
    agents = agents_activations(system, mixing, PROMPTS)
    for ours, theirs in zip(agents, torched, strict=True):
        assert theirs.shape[1] == (1 if graph == "complete" else mixing.tokens)
        assert np.abs(ours - theirs).max() < 1e-10
    assert np.abs(np.diff(agents.workspaces, axis=0)).max() > 0.1
    np.testing.assert_allclose((torched.queries**2).sum(axis=3), 1.0, rtol=1e-9)
    np.testing.assert_allclose(agents.estimates, agents_estimates(system, mixing, PROMPTS), rtol=0, atol=0)
    after = model.state_dict()
    assert all(
        value.dtype == before[name].dtype and value.equal(before[name]) for name, value in after.items()
    )
    assert not any(layer.update._forward_hooks for layer in model.rounds())


@pytest.mark.parametrize("graph", ["complete", "causal"])
@pytest.mark.parametrize(
    "change",
    [
        Patch(SWAP),
        Patch(SWAP, np.array([7])),
        Steer(np.ones((6, 1))),
        Steer(np.ones((6, 1)), np.array([0, 2])),
    ],
    ids=["all patched", "one patched", "all steered", "two steered"],
)
def test_the_module_and_its_agents_answer_alike_when_changed(graph: str, change: Change) -> None:
    model, system, mixing = both(graph)
    alone = agents_estimates(system, mixing, PROMPTS)
    for layer in range(system.rounds + 1):
        agents = agents_estimates(system, mixing, PROMPTS, layer, change)
        torched = module_estimates(model, system, mixing, PROMPTS, layer, change)
        assert np.abs(agents[layer:] - torched).max() < 1e-10 * np.abs(agents).max()
        # All start alike, so a patch before the first layer is none.
        assert (np.abs(agents[-1] - alone[-1]).max() > 0.01) == (layer > 0 or isinstance(change, Steer))


# Measures of interventions


def test_followed_counts_the_donors_branches_by_hand() -> None:
    prior = tree(2, 2, 0.8, 3)
    atoms, donors = np.array([0, 1, 2, 3, 0]), np.array([1, 2, 3, 0, 3])
    answers = np.array([[1, 1, 3, 3, 1], [1, 2, 3, 0, 3]])  # the second are the donors' own atoms
    own, patched = prior.atoms.T[:, atoms], prior.atoms.T[:, answers].swapaxes(0, 1)
    rows = followed(patched, own, atoms, donors, prior)
    found = rows.set_index(["layer", "scale", "pairs"])
    # Scale 1 differs for prompts 1, 3, 4; scale 2, among siblings, for all but prompts whose parity agrees.
    assert found["prompts"].unstack().loc[0].to_numpy().tolist() == [[3, 3], [5, 2]]
    assert found.loc[(0, 1, "differ"), "value"] == 0.0
    assert found.loc[(0, 2, "differ"), "value"] == pytest.approx(3 / 5)  # prompts 0, 2, 4
    assert found.loc[(0, 2, "part"), "value"] == 1.0  # prompts 0 and 2
    assert (found.loc[1, "value"] == 1.0).all() and (found["control"] == 0.0).all()
    nodes = followed(
        prior.atoms.T[:, answers].swapaxes(0, 1), prior.atoms.T[:, atoms], atoms, donors, prior, False
    )
    by_node = nodes.set_index(["layer", "scale", "pairs"])["value"]
    assert by_node.loc[(0, 2, "differ")] == pytest.approx(2 / 5)
    nobody = followed(own[None], own, atoms, np.arange(5), prior)
    assert nobody["value"].isna().all() and not nobody["prompts"].any()


def test_a_workspace_that_is_w_is_steered_by_as_much_as_was_added() -> None:
    prior = tree(2, 3, 0.8, 8)
    atoms = np.arange(9).repeat(2)
    workspaces = prior.atoms.T[:, atoms]
    for scale, source, target in ((1, 0, 1), (2, 2, 0)):
        turn = Turn(scale, source, target)
        way = branch_directions(workspaces, atoms, prior, turn)[atoms].T
        strengths = (-1.0, 0.0, 0.4, 1.0)
        steered = np.stack([workspaces + strength * way for strength in strengths])
        rows = steering_curve(strengths, steered, steered[[1] * 4], workspaces, atoms, prior, turn)
        np.testing.assert_allclose(rows["value"], strengths, atol=1e-12)
        assert rows["turned"].tolist() == [0.0, 0.0, 0.0, 1.0]
        assert not rows[["control", "control_turned"]].to_numpy().any()


# Everything, and its figures


def test_the_study_of_the_module_is_that_of_its_agents_and_can_be_drawn(tmp_path: Path) -> None:
    model, system, mixing = both("complete")
    prompts, strengths = range(120), (0.0, 1.0)
    torched = measure_function_vectors(model, system, mixing, prompts, 80, strengths)
    agents = measure_function_vectors(None, system, mixing, prompts, 80, strengths)
    for name in ("probes", "alignment", "spread", "patching", "steering"):
        pd.testing.assert_frame_equal(getattr(torched, name), getattr(agents, name), rtol=1e-6, atol=1e-9)
    # The module rounds a little differently in a batch of another size; the agents do not.
    for found, rounding in ((torched, 1e-12), (agents, 0.0)):
        still = found.steering[found.steering["strength"] == 0]
        assert still[["value", "control"]].abs().to_numpy().max() <= rounding
    caption = parameters(BASE)
    assert all(part in caption for part in ("N = 12", "b = 12", "τ = 0.5", "3 levels"))
    path = torched.alignment[torched.alignment["path"] == "true"]
    figures = [
        probe_map(torched.probes, caption),
        query_alignment(path, torched.spread, caption),
        *(patching_map(torched.patching, caption, pairs) for pairs in ("part", "differ")),
        *(steering_curves(torched.steering, caption, value) for value in ("value", "turned")),
    ]
    for index, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{index}.svg")
        supxlabel = figure.get_supxlabel()
        assert " ".join(supxlabel.split()).startswith(caption) and "s.e." in supxlabel


@pytest.mark.slow
def test_a_trained_transformer_learns_the_branches_coarse_to_fine(tmp_path: Path) -> None:
    """At the demo's parameters. With less noise or fewer scales one query superposes several scales."""
    experiment = Experiment().with_values(
        {"channel.bits": 16, "channel.noise": 1.0, "run.rounds": 4, "policy.kind": "learned"}
    )
    model = train(experiment, tmp_path).model()
    built = build(experiment, learned=export(model))
    found = measure_function_vectors(model, built.system, built.mixing, range(1200), 600)
    probe = found.probes.set_index(["layer", "scale"])["value"]
    for scale in (1, 2, 3):
        assert probe.loc[(scale, scale)] > 0.85
        assert all(probe.loc[(layer, scale)] < 0.7 for layer in range(scale))
    path = found.alignment[found.alignment["path"] == "true"].set_index(["layer", "scale"])
    assert path.loc[(1, 1), "value"] > 0.9 and abs(path.loc[(1, 1), "gain"]) < 1e-9
    assert path.loc[(2, 2), "gain"] > 0.3 and path.loc[(3, 3), "gain"] > 0.4
    chosen = found.patching[(found.patching["tokens"] == "all") & (found.patching["pairs"] == "part")]
    part = chosen.set_index(["layer", "scale"])["value"]
    assert part.loc[(1, 1)] > 0.9 and part.loc[(1, 2)] < 0.1
    assert part.loc[(2, 2)] > 0.6 and part.loc[(2, 3)] < 0.1
    assert (part.loc[4] > 0.95).all()
