"""What changes if some tokens are silenced or corrupted: the experiment played again, paired by prompt."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.policies.base import Policy
from agents.policies.corrupted import Corrupted, Kind
from agents.policies.learned import Learned
from analysis.statistics import Estimate, columns, mean_over_prompts, paired_difference
from runner.built import Built, build
from runner.config.experiment import Experiment
from runner.engines import Engine
from runner.engines.local import LocalEngine
from runner.errors import UsageError, nearest
from runner.simulation.simulate import batch_size
from runner.storage.manifest import Batches
from runner.validate import validate_policy

_MOST_NUMBERS = 2**27  # estimates that are held at once, of both runs


def intervene(
    experiment: Experiment | Built,
    tokens: Iterable[int],
    kind: str = "silent",
    size: float = 1.0,
    *,
    rounds: Iterable[int] | None = None,
    learned: Learned | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Play an experiment twice, the second time with corrupted tokens; differences by round and reader.

    The same prompts, noise and messages of all others: what differs is the influence of those tokens, exact
    to the last bit.

    Args:
        experiment: what is run, as it is or built.
        tokens: positions that are corrupted.
        kind: silent, constant, flipped or random; see `agents.policies.corrupted`.
        size: of what they say instead.
        rounds: in which they are corrupted; all if left out.
        learned: weights of a learned policy.
        engine: where it is played.

    Returns:
        round, position, risk (as it was), value (risk with corrupted tokens less risk as it was), se, moved
        (|w_i' - w_i|^2 / E|w|^2, mean over prompts) and moved_se.

    Raises:
        UsageError: if there are no such tokens, kinds or rounds; or if more numbers were held than fit.

    Example:
        >>> small = {"task.prompts": 50, "task.tokens": 6, "graph.kind": "path", "run.rounds": 2}
        >>> found = intervene(Experiment().with_values(small), tokens=[0])
        >>> reached = found[found["moved"] > 0].groupby("round")["position"].max().to_dict()
        >>> reached                                     # by one step in each round
        {1: 1, 2: 2}
    """
    built = experiment if isinstance(experiment, Built) else build(experiment)
    if learned is not None:
        built = built.with_weights(learned)
    given = built.experiment
    numbers = 2 * (given.run.rounds + 1) * given.task.tokens * given.task.prompts * (built.prior.dim + 1)
    if numbers > _MOST_NUMBERS:
        possible = f"so many that {_MOST_NUMBERS:,} numbers are held; these are {numbers:,}"
        raise UsageError("task.prompts", given.task.prompts, possible, "Take fewer prompts, with --set")
    if kind not in get_args(Kind):
        raise UsageError("kind", kind, ", ".join(get_args(Kind)), nearest(kind, get_args(Kind)))
    try:
        when = None if rounds is None else tuple(rounds)
        places = np.array(list(tokens), dtype=int)
        policy = Corrupted(built.policy, places, kind, size, when)  # type: ignore[arg-type]  # checked above
    except ValueError as failure:
        raise UsageError("tokens", tokens, f"positions, and a finite size ({failure})") from None
    playing = engine or LocalEngine()
    before, after = (_played(built, one, playing) for one in (built.policy, policy))
    return _compared(before, after, built.prior.power())


Recorded = tuple[Float[np.ndarray, "rounds N B"], Float[np.ndarray, "rounds N d B"]]


def _played(built: Built, policy: Policy[Any], engine: Engine) -> Recorded:
    """Errors and estimates of all rounds, with the channel and the graph of the experiment."""
    system, given = replace(built.system, policy=policy), built.experiment
    batches = Batches(range(given.task.prompts), batch_size(given)).after()
    validate_policy(policy, system.rounds, built.mixing.tokens, batches)
    errors: list[list[np.ndarray]] = [[] for _ in range(system.rounds + 1)]
    estimates: list[list[np.ndarray]] = [[] for _ in errors]
    for batch in batches:
        for outcome in engine.play(system, built.mixing, batch, detail=True):
            assert outcome.report.detail is not None
            errors[outcome.round].append(outcome.report.error)
            estimates[outcome.round].append(outcome.report.detail.estimate)
    return (
        np.stack([np.concatenate(parts, axis=-1) for parts in errors]),
        np.stack([np.concatenate(parts, axis=-1) for parts in estimates]),
    )


def _compared(before: Recorded, after: Recorded, power: float) -> pd.DataFrame:
    risk = mean_over_prompts(before[0] / power)
    change = paired_difference(after[0] / power, before[0] / power)
    moved = mean_over_prompts(((after[1] - before[1]) ** 2).sum(axis=2) / power)
    rounds, tokens = risk.value.shape
    rows = []
    for index in range(rounds):
        for position in range(tokens):
            at = (index, position)
            parts = {
                name: Estimate(one.value[at], one.error[at])
                for name, one in (("value", change), ("moved", moved))
            }
            rows.append(
                {"round": index, "position": position, "risk": float(risk.value[at]), **columns(**parts)}
            )
    return pd.DataFrame(rows)
