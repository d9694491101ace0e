"""Dynamic programming: the best adaptive choice of codes, and how far greedy and static are from it.

Expectimax over histories, with finitely many answers to each question. Optimal, greedy and static run
through the same histories, so their order holds exactly and not only within the error.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from analysis.theory.dynamic_programming.expectimax import Codes, Search
from analysis.theory.setting import Setting

Array = np.ndarray
_SCHEDULES = 1e6  # schedules of all rounds, whose values are held together
_LARGEST = 2e10  # histories before those out of reach and those equal by symmetry: about a minute


@dataclass(frozen=True, eq=False)
class Optimal:
    """Risk relative to E|w|^2 of the best policies with l = 0..L rounds, each l a problem of its own.

    Attributes:
        risk: of the best adaptive policy [L+1].
        greedy: of asking the K codes of largest posterior variance [L+1].
        static: of the best fixed schedule of the same codes [L+1].
        error: estimated error of `risk` [L+1].
        greedy_error: of `greedy` [L+1].
        static_error: of `static` [L+1].
        cut: part of the errors that is a bound, for the histories that were not pursued [L+1].
        first: codes of the first round of the best policy with 1..L rounds, up to symmetry.
        schedule: codes of each round of the best schedule of L rounds, up to symmetry.
    """

    risk: Float[Array, " rounds"]
    greedy: Float[Array, " rounds"]
    static: Float[Array, " rounds"]
    error: Float[Array, " rounds"]
    greedy_error: Float[Array, " rounds"]
    static_error: Float[Array, " rounds"]
    cut: Float[Array, " rounds"]
    first: tuple[Codes, ...]
    schedule: tuple[Codes, ...]

    @property
    def ratio(self) -> Float[Array, " rounds"]:
        """greedy / optimal, 1 where both are zero."""
        tiny = np.finfo(float).tiny
        return (self.greedy + tiny) / (self.risk + tiny)


def optimal(setting: Setting, nodes: int = 5, cut: float = 1e-6) -> Optimal:
    """Risk of the best policies on the Gaussian effective channel, by expectimax over what will be heard.

        V_0 = E|w - E[w | heard]|^2,   V_l(heard) = min over K codes of E[V_{l-1}(heard, next fields)]

    The fields are those of the mean field with the covariance that the belief takes them to have. For a
    discrete prior and a joint belief that is the law of `evolve(form="gaussian")`; a Gaussian part beside
    several atoms enters it by its mean only, and without `joint` the fields of different rounds are
    independent. All curves are exact for a channel with finitely many answers (`FiniteChannel`), and on it
    risk <= greedy, risk <= static, and neither risk nor static rises with l. Their error as curves of the
    Gaussian channel is estimated, not bounded, by the larger change against two runs with fewer points. It
    is first order in the spacing for `greedy`, whose choice jumps with what is heard, second order for
    `risk`, which has kinks there, and exponentially small for `static`. A history of reach times risk below
    `cut` is stopped where it is, which any policy may do; the risk that remains bounds what this may cost
    the best policy, and is added to every error. With a single atom nothing depends on what is heard: all
    is exact, and the best policy is a schedule.

    Policy and schedule of the setting are not used. The time grows like (codes x points)^L over the number
    of symmetries: 4 seconds for 3 levels and L = 4.

    Args:
        setting: the system; L is its number of rounds.
        nodes: points for each distinct signal u.mu of a question of the last round, odd and at least 5;
            half as many again for every round before it.
        cut: share of E|w|^2 below which a history is not pursued.

    Raises:
        ValueError: if nodes or cut are out of range, or so many rounds would take too long.

    Source: THEORY.md section 7.3; R. Bellman, Dynamic Programming (1957).

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> found = optimal(Setting(prior, principal(prior), "adaptive", 2, 1, 32.0, 0.1, 1.0))
        >>> bool((found.risk <= found.greedy).all() and (found.risk <= found.static).all())
        True
    """
    if nodes < 5 or nodes % 2 == 0:
        raise ValueError(f"the number of nodes must be odd and at least 5, got {nodes}")
    if cut < 0:
        raise ValueError(f"the cut is a share of E|w|^2 and not negative, got {cut}")
    most = affordable_rounds(setting, nodes)
    if most < setting.rounds:
        raise ValueError(
            f"dynamic programming over {setting.rounds} rounds of {setting.channels} out of "
            f"{len(setting.codebook)} codes takes too long: {most} are possible with {nodes} nodes"
        )
    half = nodes // 2
    fine = Search(setting, cut, half, half / 2).result()
    lost = fine.curves[0] - fine.least
    error = np.tile(lost, (3, 1))
    if len(setting.prior.weights) > 1:
        coarse = [
            Search(setting, cut, points, more).result().curves
            for points, more in ((half, 0.0), (half // 2, half / 4))
        ]
        error += np.max([np.abs(curves - fine.curves) for curves in coarse], axis=0)
    best, greedy, static = fine.curves
    return Optimal(best, greedy, static, error[0], error[1], error[2], lost, fine.first, fine.schedule)


def affordable_rounds(setting: Setting, nodes: int = 5) -> int:
    """Largest number of rounds, up to that of the setting, that `optimal` accepts.

    Args:
        setting: the system.
        nodes: as for `optimal`.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(3, 2, 0.8, 7)
        >>> affordable_rounds(Setting(prior, principal(prior), "adaptive", 12, 1, 32.0, 0.1))
        4
    """
    search, histories = Search(setting, 0.0, nodes // 2, nodes // 2 / 2), 1.0
    for rounds in range(1, setting.rounds + 1):
        each = max(search.channel.answers(code, search.half(rounds)) for code in range(len(setting.codebook)))
        histories *= len(search.actions) * float(each) ** setting.channels
        if histories > _LARGEST or float(len(search.actions)) ** rounds > _SCHEDULES:
            return rounds - 1
    return setting.rounds
