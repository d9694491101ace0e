"""All measures of function vectors on one trained transformer, with prompts that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.policies.intervened import Change, Patch, Steer
from agents.prior import draw_latent
from agents.step import System
from agents.transformer.model import Transformer
from analysis.function_vectors import (
    alignment,
    nearest_atoms,
    probe_accuracy,
    query_spread,
    relative_branches,
)
from analysis.patching import Turn, branch_directions, followed, steering_curve
from runner.activations import module_activations, module_estimates
from runner.workspaces import agents_activations, agents_estimates
from topology.mixing import Mixing

STRENGTHS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True, eq=False)
class FunctionVectors:
    """What was measured, in tidy frames.

    Attributes:
        probes: of `probe_accuracy`.
        alignment: of `alignment`, with a column path: true, or believed before the layer.
        spread: of `query_spread`.
        patching: of `followed`, with a column tokens: all, or the one that answers.
        steering: of `steering_curve`, with a column layer.
    """

    probes: pd.DataFrame
    alignment: pd.DataFrame
    spread: pd.DataFrame
    patching: pd.DataFrame
    steering: pd.DataFrame


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
