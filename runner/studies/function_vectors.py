"""A trained transformer examined layer by layer: probes, queries, patching, steering."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.policies.intervened import Change, Patch, Steer
from agents.prior import draw_latent
from agents.step import System
from agents.transformer.export import export
from agents.transformer.model import Transformer
from analysis.measures.interventions import Turn, branch_directions, followed, steering_curve
from analysis.measures.probes import (
    FunctionVectors,
    alignment,
    nearest_atoms,
    probe_accuracy,
    query_spread,
    relative_branches,
)
from analysis.plots.function_vectors import patching_map, probe_map, query_alignment, steering_curves
from analysis.report.tables import by_scale_and_layer
from analysis.report.verdict import vectors_sentence
from runner.built import Built
from runner.errors import UsageError
from runner.storage.files import new_folder, write_figure
from runner.studies.activations import (
    agents_activations,
    agents_estimates,
    module_activations,
    module_estimates,
)
from runner.studies.base import Findings, Session, parameters
from runner.training import train
from topology.mixing import Mixing

STRENGTHS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_FEWEST = 40  # prompts; half of them fit the probes


def prepare(built: Built) -> Callable[[Session], Findings]:
    """Check that an experiment's transformer can be examined; gives what trains and examines it.

    Args:
        built: policy `learned`; its first half of prompts fits probes and directions, the other half is
            measured. The weights are trained, or taken from where they are kept.

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    experiment = built.experiment
    if experiment.prior.kind != "tree":
        possible = '"tree": other priors have no branches to read'
        raise UsageError("prior.kind", experiment.prior.kind, possible)
    if experiment.run.rounds < 1:
        raise UsageError("run.rounds", experiment.run.rounds, "1 or more layers")
    if experiment.task.prompts < _FEWEST:
        possible = f"{_FEWEST} or more, half of which fit the probes"
        raise UsageError("task.prompts", experiment.task.prompts, possible)
    return partial(_run, built)


def _run(built: Built, session: Session) -> Findings:
    model = train(built, session.out, session.progress).model()
    system, mixing = built.with_weights(export(model)).system, built.mixing
    prompts = built.experiment.task.prompts
    with session.progress.task("function vectors", 1):
        found = measure_function_vectors(model, system, mixing, range(prompts), prompts // 2)
    folder = new_folder(session.out, f"vectors-{session.name}-{built.experiment.identity()}")
    depth, measured = built.experiment.run.rounds, prompts - prompts // 2
    caption = f"{parameters(built.experiment)}; trained transformer of depth {depth}; {measured:,} prompts"
    own = found.alignment[found.alignment["path"] == "true"]
    drawn = {
        "probes": probe_map(found.probes, caption),
        "queries": query_alignment(own, found.spread, caption),
        "patching": patching_map(found.patching, caption),
        "steering": steering_curves(found.steering, caption),
    }
    patched = found.patching.query("pairs == 'part' and tokens == 'all'")
    other = "the same, of another prompt's query"
    return Findings(
        asdict(found),
        vectors_sentence(found.probes, found.alignment, found.patching),
        folder,
        [write_figure(figure, folder, name) for name, figure in drawn.items()],
        displays=[
            by_scale_and_layer(found.probes, "accuracy of a linear probe for the branch"),
            by_scale_and_layer(own, "squared cosine of the query with the node of the own path"),
            by_scale_and_layer(own, other, "control", "control_se"),
            by_scale_and_layer(patched, "answers that follow a donor, patched after the layer"),
        ],
    ).saved()


def measure_function_vectors(
    model: Transformer | None,
    system: System,
    mixing: Mixing,
    prompts: range,
    fitted: int,
    strengths: Sequence[float] = STRENGTHS,
    token: int = -1,
    seed: int = 0,
) -> FunctionVectors:
    """Probes, alignment, patching and steering of one trained transformer, layer by layer.

    Args:
        model: the transformer, as deep as system.rounds; None for agents that run the weights of
            system.policy, which gives the same numbers and takes longer.
        system: addresses the prompts and the noise.
        mixing: who hears whom.
        prompts: consecutive prompt indices.
        fitted: prompts, the first ones, on which probes and directions are fitted; all else is measured on
            the others.
        strengths: multiples of the direction between two branches that are added.
        token: position whose workspace is read; the last hears most on a causal graph.
        seed: of the random directions beside which steering is held.

    Source: THEORY.md section 8; E. Todd et al., arXiv:2310.15213; G. Alain and Y. Bengio, arXiv:1610.01644.
    """
    if model is None:
        inner = agents_activations(system, mixing, prompts)
    else:
        inner = module_activations(model, system, mixing, prompts)
    prior, atoms = system.prior, draw_latent(system.prior, system.seed, prompts).atom
    held, true = prompts[fitted:], atoms[fitted:]
    layers = range(system.rounds + 1)
    workspaces, estimates = _row(inner.workspaces, token), _row(inner.estimates, token)
    queries = _row(inner.queries, token)[..., fitted:]
    paths = {
        "true": np.broadcast_to(true, (system.rounds, len(true))),
        "believed": nearest_atoms(estimates[:-1, :, fitted:], prior),
    }
    answers = estimates[-1][:, fitted:]

    def changed(layer: int, change: Change) -> Float[np.ndarray, "d B"]:
        if model is None:
            played = agents_estimates(system, mixing, held, layer, change)
        else:
            played = module_estimates(model, system, mixing, held, layer, change)
        return _row(played, token)[-1]

    donors = np.roll(np.arange(len(held)), -1)
    patching = []
    place = np.array([token % mixing.tokens])
    for name, tokens in (("all", None), ("one", place)):
        patch = Patch(donors, tokens)
        patched = np.stack([changed(layer, patch) for layer in layers])
        patching.append(followed(patched, answers, true, donors, prior).assign(tokens=name))
    steering = []
    generator = np.random.default_rng(seed)
    for layer in layers[1:]:
        for scale in range(1, prior.branches.shape[1] + 1):
            turn = Turn(scale)
            by_atom = branch_directions(workspaces[layer][:, :fitted], atoms[:fitted], prior, turn)
            direction = by_atom[true].T  # [W, B]
            randoms = generator.normal(size=direction.shape)
            randoms *= np.linalg.norm(direction, axis=0) / np.linalg.norm(randoms, axis=0)
            steered, control = (
                np.stack([changed(layer, Steer(strength * way)) for strength in strengths])
                for way in (direction, randoms)
            )
            curve = steering_curve(strengths, steered, control, answers, true, prior, turn)
            steering.append(curve.assign(layer=layer))
    return FunctionVectors(
        probe_accuracy(workspaces, relative_branches(prior.branches)[atoms], fitted),
        pd.concat([alignment(queries, path, prior).assign(path=name) for name, path in paths.items()]),
        query_spread(queries),
        pd.concat(patching, ignore_index=True),
        pd.concat(steering, ignore_index=True),
    )


def _row(stacked: Float[np.ndarray, "layers rows ..."], token: int) -> Float[np.ndarray, "layers ..."]:
    """That of one token, which may be that of all."""
    return stacked[:, token if stacked.shape[1] > 1 else 0]
