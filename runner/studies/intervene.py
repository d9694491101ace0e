"""What changes if tokens, edges, workspaces or bits are altered: played again, paired by prompt."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.policies.base import Policy
from agents.policies.learned import Learned
from analysis.statistics import Estimate, columns, mean_over_prompts, paired_difference
from runner.built import Built, build
from runner.config.experiment import Experiment, parse
from runner.config.sweep import Alteration, plain
from runner.engines import Engine
from runner.engines.altered import AlteredEngine, Edge
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.simulation.altered import altered
from runner.simulation.simulate import batch_size
from runner.storage.manifest import Batches
from runner.validate import validate_policy

_MOST_NUMBERS = 2**27  # estimates that are held at once, of both runs
_MOST_EDGES = 5_000  # times that a round of messages is played again for one reader


def intervene(
    experiment: Experiment | Built,
    tokens: int | Iterable[int] = (),
    kind: str = "silent",
    size: float | None = None,
    *,
    edges: Iterable[Edge] = (),
    rounds: Iterable[int] | None = None,
    trim: float = 0.0,
    bits: Mapping[int, int] | None = None,
    learned: Learned | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Play an experiment twice, the second time altered; differences by round and reader.

    The same prompts, noise and messages of all others: what differs is the influence of what is altered,
    exact to the last bit. Agents do not know of it: they ask, and read, as they had planned.

    Args:
        experiment: what is run, as it is or built.
        tokens: positions whose messages are other ones, or, `patched`, whose workspaces after the one round
            that is named are those of the next prompt at the same position; a number for so many of the
            first.
        kind: silent, constant, flipped, random or adversarial (see `agents.policies.corrupted`), or patched.
        size: of what they say instead; by default 1, of adversarial ones the clip of the channel.
        edges: pairs (sender, receiver) on which messages are silent, or, patched, those of the next prompt.
        rounds: in which tokens or edges are altered; all if left out.
        trim: share of the messages about a code that each token leaves out of its mean, at either end.
        bits: bits of a scalar in a round and those that follow it, by round.
        learned: weights of a learned policy.
        engine: where it is played; edges, trim and bits in this process.

    Returns:
        round, position, risk (as it was), value (risk when altered less risk as it was), se, moved
        (|w_i' - w_i|^2 / E|w|^2, mean over prompts) and moved_se.

    Raises:
        UsageError: if there are no such tokens, edges, kinds or rounds, or nothing is altered; or if more
            numbers were held than fit.

    Example:
        >>> small = {"task.prompts": 50, "task.tokens": 6, "graph.kind": "path", "run.rounds": 2}
        >>> found = intervene(Experiment().with_values(small), tokens=[0])
        >>> reached = found[found["moved"] > 0].groupby("round")["position"].max().to_dict()
        >>> reached                                     # by one step in each round
        {1: 1, 2: 2}
        >>> cut = intervene(Experiment().with_values(small), edges=[(0, 1)], rounds=[2])
        >>> cut[cut["moved"] > 0][["round", "position"]].values.tolist()
        [[2, 1]]
    """
    built = experiment if isinstance(experiment, Built) else build(experiment)
    if learned is not None:
        built = built.with_weights(learned)
    _check_size(built)
    content = {
        "tokens": tuple(range(tokens)) if isinstance(tokens, int) else tuple(map(plain, tokens)),
        "kind": kind,
        "size": size,
        "edges": tuple(edges),
        "rounds": None if rounds is None else tuple(rounds),
        "trim": trim,
        "bits": dict(bits or {}),
    }
    alteration = parse(Alteration, content)
    if alteration.is_none:
        raise UsageError("tokens", (), "one or more tokens or edges, a trimmed share, or bits of a round")
    policy, on_the_way = altered(built, alteration)
    if on_the_way and engine is not None:
        raise UsageError("engine", engine.name, "left out: edges, trim and bits are altered in this process")
    playing = engine or LocalEngine()
    together = kind == "patched"  # the next prompt must be among those that are played together
    before = _played(built, built.policy, playing, together)
    try:
        after = _played(built, policy, on_the_way or playing, together)
    except (ValueError, FloatingPointError) as failure:
        possible = f"something that the policy, or the channel, can be given ({failure})"
        raise UsageError("kind", kind, possible) from None
    return _compared(before, after, built.prior.power())


def edge_influence(experiment: Experiment | Built, reader: int) -> pd.DataFrame:
    """Which messages, on which edges and in which rounds, moved the last estimate of one token.

    Each edge that lies within reach is silenced in each round by itself, and all that follows played again.

    Args:
        experiment: what is run, as it is or built.
        reader: position whose estimate after the last round is looked at.

    Returns:
        round, sender, receiver, moved (|w_i' - w_i|^2 / E|w|^2, mean over prompts), moved_se; largest first.

    Raises:
        UsageError: if there is no such reader, or there are more edges and rounds than can be played again.

    Example:
        >>> small = {"task.prompts": 50, "task.tokens": 6, "graph.kind": "path", "run.rounds": 2}
        >>> found = edge_influence(Experiment().with_values(small), reader=0)
        >>> sorted(found[["round", "sender", "receiver"]].values.tolist())
        [[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 2, 1], [2, 0, 0], [2, 1, 0]]
    """
    built = experiment if isinstance(experiment, Built) else build(experiment)
    _check_size(built)
    if not 0 <= reader < built.mixing.tokens:
        raise UsageError("reader", reader, f"a position from 0 to {built.mixing.tokens - 1}")
    tried = _within_reach(built, reader)
    if len(tried) > _MOST_EDGES:
        possible = (
            f"{_MOST_EDGES:,} messages or fewer that can reach the reader; these are {len(tried):,}: take a "
            "sparser graph or fewer rounds"
        )
        raise UsageError("reader", reader, possible)
    clean = _played(built, built.policy, LocalEngine())[1][-1, reader]
    rows = []
    for round, edge in tried:
        cut = _played(built, built.policy, AlteredEngine((edge,), (round,)))[1][-1, reader]
        moved = mean_over_prompts(((cut - clean) ** 2).sum(axis=0) / built.prior.power())
        row = {"round": round, "sender": edge[0], "receiver": edge[1]}
        rows.append({**row, **columns(moved=moved)})
    order = ["moved", "round", "sender", "receiver"]
    found = pd.DataFrame(rows, columns=["round", "sender", "receiver", "moved", "moved_se"])
    return found.sort_values(order, ascending=[False, True, True, True], ignore_index=True)


def _within_reach(built: Built, reader: int) -> list[tuple[int, Edge]]:
    """Rounds and edges whose messages can reach the reader by the last round, own messages among them."""
    weights = built.mixing.weights
    hears, listeners = [], {reader}
    for round in range(built.system.rounds, 0, -1):
        senders = set()
        for receiver in sorted(listeners):
            row = 0 if built.mixing.is_shared else receiver
            heard = weights.indices[weights.indptr[row] : weights.indptr[row + 1]].tolist()
            hears += [(round, (sender, receiver)) for sender in heard]
            senders.update(heard)
        listeners = senders
    return hears


def _check_size(built: Built) -> None:
    given = built.experiment
    numbers = 2 * (given.run.rounds + 1) * given.task.tokens * given.task.prompts * (built.prior.dim + 1)
    if numbers > _MOST_NUMBERS:
        possible = f"so many that {_MOST_NUMBERS:,} numbers are held; these are {numbers:,}"
        raise UsageError("task.prompts", given.task.prompts, possible, "Take fewer prompts, with --set")


Recorded = tuple[Float[np.ndarray, "rounds N B"], Float[np.ndarray, "rounds N d B"]]


def _played(built: Built, policy: Policy[Any], engine: Engine, together: bool = False) -> Recorded:
    """Errors and estimates of all rounds, on the graph of the experiment."""
    system, given = replace(built.system, policy=policy), built.experiment
    size = given.task.prompts if together else batch_size(given)
    batches = Batches(range(given.task.prompts), size).after()
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
