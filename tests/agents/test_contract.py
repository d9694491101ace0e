"""The contract that users can check: ours keep it, and each way to break it is named."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from agents.contract import ContractError, check_policy, check_prior
from agents.policies.flood import Flood
from agents.prior import PRIORS, PriorOptions
from agents.step import System
from runner.built import build
from runner.config.experiment import Experiment
from tests.agents.test_policies import BASE, VARIANTS

SMALL = Experiment().with_values({"task.tokens": 6, "run.rounds": 2})


@pytest.mark.parametrize("name", [name for name in VARIANTS if "learned" not in name])
def test_our_policies_keep_it(name: str) -> None:
    built = build(BASE.with_values({**VARIANTS[name], "graph.kind": "complete"}))
    check_policy(built.system, tokens=built.mixing.tokens)


@pytest.mark.parametrize("kind", PRIORS)
def test_our_priors_keep_it(kind: str) -> None:
    check_prior(PRIORS[kind].build(PriorOptions()))


@dataclass
class Broken:
    """A policy that is another one but for one thing."""

    policy: Any
    counter: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "policy":
            raise AttributeError(name)
        return getattr(self.policy, name)


class Forgetful(Broken):
    def estimate(self, state: Any) -> Any:
        self.counter.append(1)
        return self.policy.estimate(state) + 1e-9 * len(self.counter)


class Neighbourly(Broken):
    def estimate(self, state: Any) -> Any:
        found = self.policy.estimate(state)
        return found + 1e-9 * len(found)


class Crowded(Broken):
    def estimate(self, state: Any) -> Any:
        found = self.policy.estimate(state)
        return found + 1e-9 * found.mean(axis=-1, keepdims=True)


class Greedy(Broken):
    def emit(self, state: Any, tokens: Any, round: int) -> Any:
        tokens.inputs[:] *= 2
        return self.policy.emit(state, tokens, round)


class Unheard(Broken):
    def emit(self, state: Any, tokens: Any, round: int) -> Any:
        message = self.policy.emit(state, tokens, round)
        return message._replace(codes=message.codes + self.policy.codes)


class Endless(Broken):
    def estimate(self, state: Any) -> Any:
        return self.policy.estimate(state) * np.nan


class Doubtful(Broken):
    def atoms(self, state: Any) -> Any:
        return 2 * self.policy.atoms(state)


class Tied(Broken):
    def __reduce__(self) -> Any:
        raise TypeError("tied to this process")


@pytest.mark.parametrize(
    ("policy", "rule"),
    [(Forgetful, "the same follows"), (Neighbourly, "tokens beside"), (Crowded, "prompts beside"),
     (Greedy, "changes what it is given"), (Unheard, "codes that are no integers"), (Endless, "finite"),
     (Doubtful, "sums to 1"), (Tied, "tied to this process")],
)  # fmt: skip
def test_what_is_broken_is_named(policy: Any, rule: str) -> None:
    system: System = build(SMALL).system
    with np.errstate(invalid="ignore"), pytest.raises(ContractError, match=rule):
        check_policy(replace(system, policy=policy(system.policy)))


def test_an_estimate_of_another_shape_is_named() -> None:
    flood = Flood(6, np.zeros(3), np.eye(3), 0.1)
    with pytest.raises((ContractError, ValueError)):
        check_policy(replace(build(SMALL).system, policy=flood))


def test_a_prior_that_is_broken_is_named() -> None:
    prior = PRIORS["tree"].build(PriorOptions())
    for other, rule in (
        (replace(prior, atoms=2 * prior.atoms), "is 1"),
        (replace(prior, axes=2 * prior.axes), "unit vectors"),
        (replace(prior, atoms=np.abs(prior.atoms)), "mean of w"),
    ):
        with pytest.raises(ContractError, match=rule):
            check_prior(other)
