"""What an experiment leaves to theory: how many rounds of averaging a question is given.

This module stands above `analysis`, as `theory` does; assembly asks it where a key says `auto`.
"""

import numpy as np

from analysis.prediction import predict_on_graph
from runner.assembly import codebook_of, prior_of
from runner.experiment import Experiment
from topology.mixing import Mixing

_SAMPLES = 2_048  # for each candidate, the same prompts for all
_POSITIONS = 8  # for which theory is asked, evenly spaced
_remembered: dict[tuple[str, bytes], int] = {}


def best_rounds_per_scale(experiment: Experiment, mixing: Mixing) -> int:
    """T, the rounds of averaging for each question with which theory predicts the least risk after L rounds.

    Few rounds average over few tokens, many leave scales out. Theory is asked for some positions, and for
    the T of `candidates`, unless each code were asked more than twice; the prompts that it draws are not
    those of a run.

    Args:
        experiment: policy `gossip`.
        mixing: who hears whom.

    Source: THEORY.md section 6, locality.
    """
    rounds = experiment.run.rounds
    if mixing.is_shared or rounds < 2:  # everyone is heard in the first round
        return 1
    key = (experiment.model_dump_json(exclude={"task": {"prompts"}, "transformer": True}), mixing.digest())
    if key not in _remembered:
        positions = np.unique(np.linspace(0, mixing.tokens - 1, _POSITIONS).astype(int))
        codes = len(codebook_of(experiment, prior_of(experiment)))
        fewest = rounds * experiment.channels / (2 * codes)
        risks = {}
        for turn in candidates(rounds):
            if turn >= fewest:
                planned = experiment.with_values({"policy.rounds_per_scale": turn})
                found = predict_on_graph(planned, _SAMPLES, mixing=mixing, positions=positions)
                risks[turn] = float(found.risk[-1])
        _remembered[key] = min(risks, key=risks.__getitem__)
    return _remembered[key]


def candidates(rounds: int) -> list[int]:
    """Numbers of rounds that are tried: two to an octave, and all of them.

    Example:
        >>> candidates(13)
        [1, 2, 3, 4, 6, 8, 12, 13]
    """
    tried = {rounds, *(2**k for k in range(7)), *(3 * 2**k for k in range(6))}
    return sorted(turn for turn in tried if turn <= rounds)
