"""What every policy and every prior must be: checks for those that users write themselves.

A simulation gives the same bits on one process and on many actors only if these hold.
"""

import pickle
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from agents.prior import Prior
from agents.step import Aggregate, Sent, Step, System, draw_block, step

_ROUNDING = 1e-9


class ContractError(AssertionError):
    """What was checked breaks a rule that simulations rely on."""


@dataclass(frozen=True, eq=False)
class _Played:
    """Some tokens and prompts of one system, from the first to the last round."""

    steps: list[Step]

    def estimates(self) -> np.ndarray:
        details = [done.report.detail for done in self.steps]
        return np.stack([detail.estimate for detail in details if detail is not None])


def check_policy(system: System, tokens: int = 6, prompts: int = 4) -> None:
    """Check the policy of a system: all hear all, round after round.

    It must be pure (no call changes its arguments, or gives something else the second time), give the same
    bits whatever tokens and prompts are computed beside, say codes that exist and numbers that are finite,
    hold a belief that is a distribution, and travel to other processes.

    Args:
        system: for example `runner.build(experiment).system`.
        tokens: N, 2 or more.
        prompts: B, 2 or more.

    Raises:
        ContractError: naming the rule that is broken.

    Example:
        >>> from runner import Experiment, build
        >>> check_policy(build(Experiment().with_values({"task.tokens": 6})).system)
    """
    policy = system.policy
    _must(tokens >= 2 and prompts >= 2, "two tokens and prompts or more are looked at")
    codes = policy.codes
    _must(isinstance(codes, int) and 1 <= codes <= 2**16, "codes is an integer from 1 to 65,536")
    try:
        if _importable(type(policy)):
            system = pickle.loads(pickle.dumps(system))
        else:  # a class of a notebook, which Ray sends along
            pickle.dumps(vars(policy))
    except Exception as failure:  # whatever a class of the user raises
        raise ContractError(f"a policy can be pickled, to travel to actors: {failure}") from failure
    everyone, all_prompts = np.arange(tokens), range(prompts)
    together = _play(system, [everyone], all_prompts)
    whole = together.estimates()
    shape = (system.rounds + 1, tokens, system.prior.dim, prompts)
    _must(whole.shape == shape, f"an estimate has the shape {shape[1:]}; got {whole.shape[1:]}")
    _must(whole.dtype.kind == "f", "estimates are real numbers in floating point")
    _must(np.isfinite(whole).all(), "estimates are finite")
    _same(_play(system, [everyone], all_prompts), whole, "played again, it gives the same bits")
    alone = [np.array([token]) for token in everyone]
    _same(_play(system, alone, all_prompts), whole, "a token's bits do not depend on tokens beside it")
    for part in (range(prompts // 2), range(prompts // 2, prompts)):
        _same(
            _play(system, [everyone], part),
            whole[..., part.start : part.stop],
            "a prompt's bits do not depend on prompts beside it",
        )
    for done in together.steps:
        belief = policy.atoms(done.state)
        if belief is not None:
            _must(bool((belief >= 0).all()), "a belief has no negative probability")
            _must(np.abs(belief.sum(axis=1) - 1).max() < _ROUNDING, "a belief sums to 1 over atoms")


def check_prior(prior: Prior) -> None:
    """Check a prior: a mixture of Gaussians with power 1 and mean 0, whose axes are unit vectors.

    Args:
        prior: as an entry of `agents.prior.PRIORS` builds it.

    Raises:
        ContractError: naming the rule that is broken.

    Example:
        >>> from agents.prior import tree
        >>> check_prior(tree(2, 2, 0.8, 3))
    """
    atoms, dim = prior.atoms.shape
    _must(prior.weights.shape == (atoms,), "there is a weight for each atom")
    _must(bool((prior.weights > 0).all()), "weights are positive")
    _must(abs(prior.weights.sum() - 1) < _ROUNDING, "weights sum to 1")
    _must(prior.factor.ndim == 2 and len(prior.factor) == dim, "the factor has a row for each dimension")
    _must(np.abs(prior.weights @ prior.atoms).max() < 1e-6, "the mean of w is 0")
    _must(prior.axes.ndim == 2 and prior.axes.shape[1] == dim, "axes have as many components as w")
    _must(abs(prior.power() - 1) < 1e-6, f"E|w|^2 is 1; it is {prior.power():.6g}")
    lengths = np.linalg.norm(prior.axes, axis=1)
    _must(np.abs(lengths - 1).max(initial=0.0) < 1e-6, "axes are unit vectors")
    branches = prior.branches
    sound = branches.ndim == 2 and len(branches) == atoms and branches.dtype.kind in "iu"
    _must(sound and bool((branches >= 0).all()), "each atom has its branches, which are integers from 0")


def _importable(kind: type) -> bool:
    """Whether other processes find the class by its name."""
    return getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind


def _play(system: System, parts: list[Int[np.ndarray, " n"]], prompts: range) -> _Played:
    """All rounds, in blocks of tokens; nothing that a policy is given may be changed by it."""
    blocks = [draw_block(system, part, prompts) for part in parts]
    states: list[Any] = [None] * len(parts)
    sent: list[Sent | None] = [None] * len(parts)
    finished: list[Step] = []
    for index in range(system.rounds + 1):
        heard = None if index == 0 else _heard([one for one in sent if one is not None], system.policy.codes)
        done = []
        for block, state, said in zip(blocks, states, sent, strict=True):
            before = pickle.dumps((block, said, heard))
            try:
                # Twice from one workspace: a replay after a fault does the same.
                one, again = (step(system, block, state, said, heard, index, detail=True) for _ in range(2))
            except Exception as failure:  # whatever the user's code raises
                raise ContractError(f"round {index}: {type(failure).__name__}: {failure}") from failure
            _must(pickle.dumps((block, said, heard)) == before, "no call changes what it is given")
            _must(_outside(one) == _outside(again), "from one workspace the same follows every time")
            done.append(one)
        states, sent = [one.state for one in done], [one.sent for one in done]
        finished.append(done[0] if len(done) == 1 else _joined(done))
    return _Played(finished)


def _outside(done: Step) -> bytes:
    """What others see of a step: messages, and the estimate."""
    assert done.report.detail is not None
    return pickle.dumps((done.sent, done.report.error, done.report.detail.estimate))


def _heard(sent: list[Sent], codes: int) -> Aggregate:
    """What all hear, code by code, with weight 1."""
    said, wire = (np.concatenate([one[part] for one in sent]) for part in range(2))
    masks = [np.ones(one.wire.shape, bool) if one.spoken is None else one.spoken for one in sent]
    spoken, numbers = np.concatenate(masks), wire.astype(np.int64)
    about = [spoken & (said == code) for code in range(codes)]
    total = np.stack([np.where(part, numbers, 0).sum(axis=(0, 1)) for part in about])[None]
    weight = np.stack([part.sum(axis=(0, 1), dtype=np.int64) for part in about])[None]
    return Aggregate(total, weight, weight.copy())


def _joined(done: list[Step]) -> Step:
    """The first step with the estimates of all."""
    details = [one.report.detail for one in done if one.report.detail is not None]
    estimate = np.concatenate([detail.estimate for detail in details])
    report = done[0].report._replace(detail=details[0]._replace(estimate=estimate))
    return done[0]._replace(report=report)


def _same(played: _Played, expected: np.ndarray, rule: str) -> None:
    _must(np.array_equal(played.estimates(), expected), rule)


def _must(holds: bool | np.bool_, rule: str) -> None:
    if not holds:
        raise ContractError(f"broken: {rule}")
