"""A built experiment, altered: which policy then plays it, and on which engine."""

from typing import Any

import numpy as np

from agents.policies.base import Policy
from agents.policies.corrupted import Corrupted
from agents.policies.intervened import Intervened, Patch
from runner.built import Built
from runner.config.sweep import Alteration
from runner.engines import Engine
from runner.engines.altered import AlteredEngine
from runner.errors import UsageError


def altered(built: Built, alteration: Alteration) -> tuple[Policy[Any], Engine | None]:
    """The policy that says, or holds, something else; and the engine on which messages are altered.

    Args:
        built: what is played; patched workspaces and messages are those of the next of its prompts, all of
            which must then be played together.
        alteration: what is done to it.

    Returns:
        the policy; the engine, None if every engine will do.

    Raises:
        UsageError: if there are no such tokens, edges, kinds or rounds.

    Example:
        >>> from runner.built import build
        >>> from runner.config.experiment import Experiment
        >>> policy, engine = altered(build(Experiment()), Alteration(tokens=(3,), trim=0.1))
        >>> type(policy).__name__, engine.name
        ('Corrupted', 'altered')
    """
    kind, places, edges = alteration.kind, alteration.places, alteration.edges
    if alteration.rounds is not None and not (alteration.rounds and (places or edges)):
        possible = "rounds in which tokens or edges are; a trimmed mean is one in all, bits name theirs"
        raise UsageError("rounds", alteration.rounds, possible)
    if kind == "patched" and built.experiment.task.prompts < 2:
        raise UsageError("kind", kind, "something else where there is one prompt: it has no next one")
    if edges and (places or kind not in ("silent", "patched")):
        given = "tokens too" if places else kind
        raise UsageError("edges", given, "edges alone, and silent or patched")
    policy = _policy(built, alteration) if places else built.policy
    if not (edges or alteration.trim or alteration.bits):
        return policy, None
    rounds = alteration.rounds if edges else None
    bits = {int(index): bits for index, bits in alteration.bits.items()}
    return policy, AlteredEngine(edges, rounds, int(kind == "patched"), alteration.trim, bits)


def _policy(built: Built, alteration: Alteration) -> Policy[Any]:
    """The policy with other messages, or other workspaces."""
    prompts, rounds = built.experiment.task.prompts, alteration.rounds
    kind = alteration.kind
    try:
        places = np.array(alteration.places, dtype=np.int64)
    except OverflowError:
        raise UsageError("tokens", alteration.places, "positions of tokens") from None
    if kind == "patched" and (rounds is None or len(rounds) != 1):
        raise UsageError("rounds", rounds, "one round, after which workspaces are patched")
    try:
        if kind == "patched":
            assert rounds is not None  # checked above
            return Intervened(built.policy, rounds[0], Patch(np.roll(np.arange(prompts), -1), places))
        loudness = built.channel.clip if kind == "adversarial" else 1.0
        said = loudness if alteration.size is None else alteration.size
        return Corrupted(built.policy, places, kind, said, rounds)
    except ValueError as failure:
        raise UsageError("tokens", alteration.places, f"positions, and a finite size ({failure})") from None
