"""How many rounds of averaging a question is best given, where an experiment leaves it to theory."""

import numpy as np

from analysis.theory.evolution.graph import evolve_on_graph
from analysis.theory.setting import Setting
from topology.mixing import Mixing

_SAMPLES = 2_048  # for each candidate, the same prompts for all
_POSITIONS = 8  # for which theory is asked, evenly spaced


def best_rounds_per_scale(setting: Setting, mixing: Mixing, seed: int) -> int:
    """T, the rounds of averaging for each question with which theory predicts the least risk after L rounds.

    Few rounds average over few tokens, many leave scales out. Theory is asked for some positions, and for
    the T of `candidates`, unless each code were asked more than twice; the prompts that it draws are not
    those of a run.

    Args:
        setting: the belief of the policy.
        mixing: who hears whom.
        seed: of the draws.

    Source: THEORY.md section 6, locality.
    """
    rounds = setting.rounds
    if mixing.is_shared or rounds < 2:  # everyone is heard in the first round
        return 1
    positions = np.unique(np.linspace(0, mixing.tokens - 1, _POSITIONS).astype(int))
    fewest = rounds * setting.channels / (2 * len(setting.codebook))
    risks = {}
    for turn in candidates(rounds):
        if turn >= fewest:
            found = evolve_on_graph(setting, mixing, (turn,), _SAMPLES, seed, "weighted", True, positions)
            risks[turn] = float(found.risk[-1])
    return min(risks, key=risks.__getitem__)


def candidates(rounds: int) -> list[int]:
    """Numbers of rounds that are tried: two to an octave, and all of them.

    Example:
        >>> candidates(13)
        [1, 2, 3, 4, 6, 8, 12, 13]
    """
    tried = {rounds, *(2**k for k in range(7)), *(3 * 2**k for k in range(6))}
    return sorted(turn for turn in tried if turn <= rounds)
