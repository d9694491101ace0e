"""Policies on locality graphs: what each must equal, what no graph lets through, what a graph costs."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from agents.prior import draw_latent
from agents.step import Aggregate, Block, Sent, System, draw_block, step
from agents.task import draw_tokens
from agents.transformer.export import export
from agents.transformer.model import Architecture, Transformer
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.training.evaluation import forward_on_prompts
from tests.agents.test_policies import leaves, random_transformer
from topology.families import FAMILIES
from topology.mixing import Mixing

WIDE: dict[str, object] = {"channel.bits": 48, "channel.clip": 16.0}
SMALL = Experiment().with_values(
    {"task.tokens": 14, "task.prompts": 20, "run.rounds": 3, "prior.levels": 2, "prior.dim": 3}
)
POLICIES: dict[str, dict[str, object]] = {
    "adaptive": {},
    "adaptive, two channels": {"channel.channels": 2},
    "static": {"policy.kind": "static"},
    "gossip": {"policy.kind": "gossip", "policy.rounds_per_scale": 2},
    "gossip, unequal turns": {"policy.kind": "gossip", "policy.rounds_per_scale": [1, 2]},
    "gossip, two channels": {
        "policy.kind": "gossip",
        "policy.rounds_per_scale": 2,
        "channel.channels": 2,
        "policy.control_variate": False,
    },
    "gradient": {"policy.kind": "gradient"},
    "flood": {"policy.kind": "flood"},
    "learned": {"policy.kind": "learned"},
}


def assemble(experiment: Experiment) -> tuple[System, Mixing]:
    built = build(experiment)
    if built.entry.is_trained:
        weights = random_transformer(built.prior.dim, experiment.channels, experiment.run.rounds)
        built = built.with_weights(weights)
    return built.system, built.mixing


def play(system: System, mixing: Mixing, places: list[Block]) -> list[list[Any]]:
    """The workspace of every token after every round, each token a block of its own."""
    states: list[Any] = [None] * len(places)
    sent: Sent | None = None
    history = []
    own: list[Sent | None] = [None] * len(places)
    for round in range(system.rounds + 1):
        heard: list[Aggregate | None] = [None] * len(places)
        if sent is not None:
            for token in range(len(places)):
                sums = mixing.aggregate(
                    sent.codes, sent.wire, system.policy.codes, np.array([token]), sent.spoken
                )
                heard[token] = Aggregate(*sums)
        steps = [
            step(system, place, state, said, aggregate, round)
            for place, state, said, aggregate in zip(places, states, own, heard, strict=True)
        ]
        states = [result.state for result in steps]
        history.append(states)
        own = [result.sent for result in steps]
        spoken = [message for message in own if message is not None]
        if spoken:
            sent = Sent(
                np.concatenate([message.codes for message in spoken]),
                np.concatenate([message.wire for message in spoken]),
                None
                if spoken[0].spoken is None
                else np.concatenate([m.spoken for m in spoken if m.spoken is not None]),
            )
    return history


def ridge(
    inputs: np.ndarray, labels: np.ndarray, mean: np.ndarray, covariance: np.ndarray, noise: float
) -> np.ndarray:
    """Best linear estimate of w from rows x, y, in the space of the labels."""
    total = inputs @ covariance @ inputs.T + noise**2 * np.eye(len(labels))
    return mean + covariance @ inputs.T @ np.linalg.solve(total, labels - inputs @ mean)


def examples(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """x [N, d, B] and y [N, B] of all tokens."""
    prior, task = build(experiment).prior, experiment.task
    prompts = range(task.prompts)
    latent = draw_latent(prior, experiment.run.seed, prompts)
    view = draw_tokens(latent, task.label_noise, experiment.run.seed, prompts, np.arange(task.tokens))
    return view.inputs, view.labels


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("prior", ["gaussian", "tree"])
def test_flooding_is_ridge_on_the_light_cone_and_in_the_end_on_all(kind: str, prior: str) -> None:
    """To 1e-10, token by token, in every round; after as many rounds as the diameter the cone is everyone."""
    experiment = SMALL.with_values(
        {**WIDE, "policy.kind": "flood", "graph.kind": kind, "prior.kind": prior, "graph.window": 5}
    )
    graph = build(experiment).graph
    distance = dict(nx.all_pairs_shortest_path_length(graph))
    farthest = max(max(row.values()) for row in distance.values())
    experiment = experiment.with_values({"run.rounds": farthest, "task.prompts": 5})
    inputs, labels = examples(experiment)
    belief = build(experiment).prior
    estimates: list[np.ndarray] = []

    def keep(prompts: range, outcome: Any) -> None:
        estimates.append(outcome.report.detail.estimate)

    simulate(experiment, observer=keep)
    whole = 0
    for round, found in enumerate(estimates):
        for token in range(14):
            cone = [j for j in range(14) if distance[j].get(token, farthest + 1) <= round]
            whole += len(cone) == 14
            for prompt in range(5):
                expected = ridge(
                    inputs[cone, :, prompt],
                    labels[cone, prompt],
                    belief.mean(),
                    belief.covariance(),
                    experiment.task.label_noise,
                )
                np.testing.assert_allclose(found[token, :, prompt], expected, atol=1e-10, rtol=0)
    assert whole >= (1 if kind == "causal" else 14), "in the last round everyone knows all that reaches him"


def test_flooding_without_label_noise_solves_the_equations_that_it_knows() -> None:
    experiment = SMALL.with_values(
        {
            **WIDE,
            "policy.kind": "flood",
            "prior.kind": "gaussian",
            "task.label_noise": 0.0,
            "graph.kind": "path",
        }
    )
    risk = simulate(experiment.with_values({"run.rounds": 13})).risk
    assert risk[0] > 0.3, "one equation for three unknowns"
    assert risk[13] < 1e-16


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_gradient_on_the_complete_graph_is_full_batch_descent(noise: float) -> None:
    experiment = SMALL.with_values(
        {**WIDE, "policy.kind": "gradient", "policy.step": 0.3, "task.label_noise": noise, "run.rounds": 8}
    )
    inputs, labels = examples(experiment)
    found: list[np.ndarray] = []
    result = simulate(experiment, observer=lambda _, outcome: found.append(outcome.report.detail.estimate))
    assert result.clipped == 0
    weights = np.zeros((3, 20))
    for estimate in found:
        np.testing.assert_allclose(estimate, np.broadcast_to(weights, (14, 3, 20)), atol=1e-10, rtol=0)
        residual = labels - np.einsum("ndb,db->nb", inputs, weights)
        weights = weights + 0.3 * np.einsum("ndb,nb->db", inputs, residual) / 14


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_default_step_descends_on_every_graph(kind: str) -> None:
    experiment = SMALL.with_values(
        {"policy.kind": "gradient", "graph.kind": kind, "run.rounds": 60, "prior.kind": "gaussian"}
    )
    risk = simulate(experiment).risk
    assert 1 > risk[1] > risk[5] > risk[20] > risk[60]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("kind", "mixing"),
    [*((kind, "uniform") for kind in FAMILIES), ("star", "metropolis"), ("small_world", "metropolis")],
)
def test_a_token_beyond_r_hops_changes_no_bit_of_a_workspace_by_round_r(
    policy: str, kind: str, mixing: str
) -> None:
    experiment = SMALL.with_values(
        {**POLICIES[policy], "graph.kind": kind, "graph.mixing": mixing, "graph.window": 4, "task.prompts": 3}
    )
    system, weights = assemble(experiment)
    places = [draw_block(system, np.array([token]), range(3)) for token in range(14)]
    changed = list(places)
    tokens = places[6].tokens
    changed[6] = places[6]._replace(tokens=tokens._replace(labels=tokens.labels + 1.0))
    before, after = play(system, weights, places), play(system, weights, changed)
    hops = nx.single_source_shortest_path_length(build(experiment).graph, 6)
    felt = 0
    for round in range(4):
        for token in range(14):
            same = leaves(before[round][token]) == leaves(after[round][token])
            assert same or hops[token] <= round, (round, token)
            felt += not same
    assert felt >= 3, "what is within reach is felt"


@pytest.mark.parametrize("kind", ["small_world", "star", "erdos_renyi", "causal"])
@pytest.mark.parametrize("policy", POLICIES)
def test_other_names_of_the_tokens_give_the_same_results_under_those_names(policy: str, kind: str) -> None:
    experiment = SMALL.with_values({**POLICIES[policy], "graph.kind": kind, "task.prompts": 3})
    system, weights = assemble(experiment)
    order = np.random.default_rng(3).permutation(14)
    places = [draw_block(system, np.array([token]), range(3)) for token in range(14)]
    renamed = Mixing(weights.weights[order][:, order])
    expected = play(system, weights, places)
    found = play(system, renamed, [places[token] for token in order])
    for round in range(4):
        for row, token in enumerate(order):
            assert leaves(found[round][row]) == leaves(expected[round][token])


def test_a_token_alone_hears_itself() -> None:
    """N = 1, and a node without edges: the same as each other, for every policy.

    What a repeated answer is worth is a constant of the whole graph, so the belief is one without it.
    """
    for name, values in POLICIES.items():
        if name == "learned":
            continue
        experiment = SMALL.with_values({**values, "run.rounds": 2, "policy.belief": "joint"})
        alone = simulate(experiment.with_values({"task.tokens": 1}))
        isolated = nx.empty_graph(14)
        isolated.add_edges_from([(3, 4), (4, 5)])
        beside = simulate(experiment, graph=isolated)
        np.testing.assert_allclose(beside.position_risk[:, 0], alone.position_risk[:, 0], rtol=1e-9)


def test_any_networkx_graph_runs_and_odd_ones_are_read_as_they_are_meant() -> None:
    """Self-loops and repeated edges add nothing; other names are put in order; directions are kept."""
    plain = nx.cycle_graph(14)
    expected = simulate(SMALL, graph=plain).prompt_risk
    looped = nx.MultiGraph(plain)
    looped.add_edges_from([(0, 0), (2, 3), (2, 3)])
    named = nx.relabel_nodes(plain, {k: f"token {k:02d}" for k in range(14)})
    for graph in (looped, named, nx.DiGraph(plain), nx.MultiDiGraph(looped)):
        np.testing.assert_array_equal(simulate(SMALL, graph=graph).prompt_risk, expected)
    one_way = simulate(SMALL, graph=nx.path_graph(14, create_using=nx.DiGraph))
    assert one_way.position_risk[1, 0] > 1.2 * one_way.position_risk[1, 1], "the first hears nobody"
    with pytest.raises(UsageError, match=r"task\.tokens = 14 .* 5, the number of nodes"):
        simulate(SMALL, graph=nx.path_graph(5))


def test_a_run_on_a_graph_that_was_handed_in_says_which_and_keeps_it(tmp_path: Path) -> None:
    """The weights of the graph are in the run's folder, and their digest in its manifest."""
    graphs = (nx.cycle_graph(14), nx.path_graph(14))
    manifests = []
    for graph in graphs:
        folder = simulate(SMALL, graph=graph, out=tmp_path).folder
        assert folder is not None
        manifests.append(json.loads((folder / "manifest.json").read_text()))
        stored = pd.read_parquet(folder / "graph.parquet")
        others = stored[stored["receiver"] != stored["sender"]]
        assert set(zip(others["sender"], others["receiver"], strict=True)) == set(graph.to_directed().edges)
    assert manifests[0]["mixing"] != manifests[1]["mixing"]
    assert manifests[0]["identity"] == manifests[1]["identity"], "the experiment is the same"


@pytest.mark.parametrize("kind", ["gradient", "flood"])
def test_channels_that_a_policy_does_not_have_are_refused(kind: str) -> None:
    experiment = SMALL.with_values({"policy.kind": kind, "channel.channels": 2})
    with pytest.raises(UsageError, match=rf"channel\.channels = 2 .* policy {kind}"):
        simulate(experiment)


def test_flooding_counts_the_bits_of_what_is_known() -> None:
    """On a line of 5 tokens 1, then 2 or 3 examples are known: (3 + 1) numbers each, of 24 + 5 bits."""
    experiment = SMALL.with_values(
        {"policy.kind": "flood", "graph.kind": "path", "task.tokens": 5, "run.rounds": 2, "task.prompts": 7}
    )
    result = simulate(experiment)
    assert result.scalars.tolist() == [0, 7 * 4 * 5, 7 * 4 * (2 + 3 + 3 + 3 + 2)]
    assert result.bits == result.scalars.sum() * (24 + 5)
    assert result.messages == 7 * 5 * 2


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("policy", ["gossip", "gradient", "flood"])
def test_bits_do_not_depend_on_blocks(policy: str, kind: str) -> None:
    experiment = SMALL.with_values({**POLICIES[policy], "graph.kind": kind, "channel.noise": 0.5})
    runs = [simulate(experiment, engine=LocalEngine(block)).prompt_risk for block in (1, 5, 14)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


@pytest.mark.parametrize("mixing", ["uniform", "metropolis"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_transformer_whose_mask_is_the_graph_computes_what_its_agents_compute(
    kind: str, mixing: str
) -> None:
    """Layer by layer and token by token, to 1e-10 in double precision, on the same prompts and noise."""
    experiment = SMALL.with_values(
        {
            "policy.kind": "learned",
            "graph.kind": kind,
            "graph.mixing": mixing,
            "graph.window": 4,
            "channel.noise": 0.3,
        }
    )
    model = Transformer(Architecture(dim=3, layers=3, width=8, hidden=12), seed=5)
    with torch.no_grad():
        model.readout.mul_(20)  # fresh weights hardly answer; these do
    expected = forward_on_prompts(model.double(), build(experiment), range(20))
    found: list[np.ndarray] = []
    simulate(
        experiment,
        learned=export(model),
        observer=lambda _, outcome: found.append(outcome.report.detail.estimate),
    )
    for layer, estimate in zip(expected, found, strict=True):
        np.testing.assert_allclose(estimate, np.broadcast_to(layer, estimate.shape), atol=1e-10, rtol=0)
    assert np.abs(found[-1] - found[0]).max() > 0.1
