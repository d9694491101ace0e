"""The contract of registered priors and policies: what an entry says beforehand is what is built."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agents.policies import POLICIES, Policy
from agents.prior import PRIORS, PriorOptions
from agents.step import draw_block, step
from runner.built import build
from runner.config.experiment import Experiment
from runner.footprint import bytes_per_token_prompt
from runner.studies.activations import play_states
from tests.agents.test_policies import BASE, VARIANTS, assemble

OPTIONS = [
    PriorOptions(),
    PriorOptions(levels=2, branching=3, dim=9, jitter=0.1),
    PriorOptions(levels=2, dim=4, directions="random", seed=3),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", PRIORS)
def test_a_prior_is_as_large_as_its_entry_says(kind: str, options: PriorOptions) -> None:
    entry = PRIORS[kind]
    prior = entry.build(options)
    assert prior.atoms.shape == (entry.atoms(options), options.dim)
    assert prior.factor.shape[1] <= entry.rank(options)
    assert prior.power() == pytest.approx(1.0)
    assert np.linalg.norm(prior.axes, axis=1) == pytest.approx(1.0)
    assert entry.null is None or entry.null in PRIORS


@pytest.mark.parametrize("kind", PRIORS)
def test_a_prior_does_not_exist_below_its_least_dimension(kind: str) -> None:
    entry, options = PRIORS[kind], PriorOptions()
    least = entry.least_dim(options)
    assert entry.build(options._replace(dim=least)).dim == least
    if least > 1:
        with pytest.raises(ValueError, match="dim"):
            entry.build(options._replace(dim=least - 1))


def test_every_policy_has_variants_in_the_contract_tests() -> None:
    kinds = {str(values.get("policy.kind", "adaptive")) for values in VARIANTS.values()}
    assert kinds == set(POLICIES)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_policy_says_what_its_entry_says(name: str) -> None:
    experiment = BASE.with_values(VARIANTS[name])
    entry, (system, mixing) = POLICIES[experiment.policy.kind], assemble(name)
    assert isinstance(system.policy, Policy)
    assert system.channel.channels == experiment.channels
    book = build(experiment).codebook
    assert system.policy.codes == (experiment.channels if book is None else len(book))
    assert (book is None) == (entry.codebook is None)
    now = step(system, draw_block(system, np.arange(mixing.tokens), range(3)), None, None, None, 0)
    assert now.sent is not None and now.sent.codes.shape == (mixing.tokens, experiment.channels, 3)


def arrays(state: Any) -> dict[int, np.ndarray]:
    """All arrays of a workspace, each once."""
    if isinstance(state, np.ndarray):
        return {id(state): state}
    return {k: v for part in state for k, v in arrays(part).items()} if isinstance(state, tuple) else {}


@pytest.mark.parametrize("name", [name for name in VARIANTS if "learned" not in name])
def test_a_workspace_takes_no_more_memory_than_was_predicted(name: str) -> None:
    experiment = BASE.with_values({**VARIANTS[name], "task.tokens": 6, "task.prompts": 4})
    built = build(experiment)
    *_, last = play_states(built.system, built.mixing, range(4))
    held = sum(array.nbytes for array in arrays(last).values())
    assert held <= 6 * 4 * bytes_per_token_prompt(experiment)


def test_entries_are_values_that_can_be_varied() -> None:
    assert replace(POLICIES["adaptive"], theory=None).theory is None
    assert Experiment().policy.kind in POLICIES
