"""A table of sixty systems, drawn beforehand: state evolution predicts each of them at its own N.

Priors, policies, N, K, bits, clip and noise are drawn by a generator whose seed was fixed before the first
run. The channel is one for which the exact form claims to be exact: at least 8 bits, and a clip that few
messages reach. All z-scores together have a family-wise false-alarm rate of 1e-3 (Bonferroni).
"""

import numpy as np
import pytest
from scipy.stats import norm

from analysis.theory.predict import predict_belief
from runner.built import build
from runner.config.experiment import Experiment
from runner.simulation.simulate import simulate

SYSTEMS, ROUNDS, PROMPTS, SAMPLES = 60, 3, 1000, 8000
# Two-sided, at 4e-4: counts of rare errors exceed it up to 2.5 times as often as normal variables do.
LIMIT = norm.isf(4e-4 / 2 / (SYSTEMS * ROUNDS))
PRIORS: list[dict[str, object]] = [
    {"prior.levels": 3, "prior.dim": 7},
    {"prior.levels": 2, "prior.dim": 5, "prior.decay": 0.6},
    {"prior.levels": 2, "prior.branching": 3, "prior.dim": 8},
    {"prior.levels": 3, "prior.directions": "random", "prior.dim": 4},
    {"prior.levels": 2, "prior.dim": 4, "prior.jitter": 0.2},
    {"prior.kind": "matched_gaussian", "prior.levels": 2, "prior.dim": 3},
    {"prior.kind": "gaussian", "prior.dim": 5},
]
POLICIES: list[dict[str, object]] = [
    {"policy.kind": "adaptive"},
    {"policy.kind": "static", "policy.order": "codes"},
    {"policy.kind": "static", "policy.order": "pooled"},
]


def draw_systems() -> list[dict[str, object]]:
    generator = np.random.default_rng(20_260_616)
    systems = []
    for index in range(SYSTEMS):
        prior = PRIORS[index % len(PRIORS)]
        policy = POLICIES[int(generator.integers(len(POLICIES)))]
        # A prior with one level has one pooled code.
        single = policy.get("policy.order") == "pooled" or prior.get("prior.kind") == "gaussian"
        systems.append(
            {
                **prior,
                **policy,
                "policy.control_variate": bool(generator.integers(2)),
                "policy.belief": str(generator.choice(["joint", "joint", "independent"])),
                "task.tokens": int(generator.choice([8, 16, 32, 64])),
                "task.label_noise": float(generator.choice([0.0, 0.1, 0.5])),
                "channel.channels": 1 if single else int(generator.integers(1, 3)),
                "channel.bits": int(generator.choice([8, 12, 24])),
                "channel.clip": float(generator.choice([16.0, 24.0])),
                "channel.noise": float(generator.choice([0.25, 0.5, 1.0])),
                "run.rounds": ROUNDS,
                "run.seed": index,
            }
        )
    return systems


@pytest.mark.statistical
@pytest.mark.parametrize("system", draw_systems(), ids=lambda system: f"{system['run.seed']}")
def test_state_evolution_predicts_a_system_of_the_table(system: dict[str, object]) -> None:
    experiment = Experiment().with_values({**system, "task.prompts": PROMPTS})
    simulated = simulate(experiment).prompt_risk[1:]
    predicted = predict_belief(build(experiment).scenario, SAMPLES).errors[1:]
    # The common variance, and four prompts more as wrong as the wrongest: where only a few are wrong their
    # number is Poisson, and no z-score is normal without them.
    both = np.concatenate([simulated, predicted], axis=1)
    variance = both.var(axis=1) * (1 / PROMPTS + 1 / SAMPLES) + 4 * (both.max(axis=1) / PROMPTS) ** 2
    scores = (simulated.mean(axis=1) - predicted.mean(axis=1)) / np.sqrt(variance)
    assert np.abs(scores).max() < LIMIT, scores
