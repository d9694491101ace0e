"""Expectimax over histories with finitely many answers to each question."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from analysis.theory.dynamic_programming.answers import FiniteChannel
from analysis.theory.dynamic_programming.histories import Histories, Opened
from analysis.theory.dynamic_programming.symmetry import Symmetry, exchanges, orbits
from analysis.theory.setting import Setting

Array = np.ndarray
Codes = tuple[int, ...]
_TIE = 1e-9  # as in `evolution`: posterior variances closer than this count as equal
_CHUNK = 256  # histories worked on together: what they take stays in the cache


class Found(NamedTuple):
    """Relative risks with 0..L rounds, where nothing is heard yet.

    Attributes:
        curves: of the optimal, the greedy and the best static policy [3, L+1].
        least: what the optimal policy has at least, were all that is cut free of risk [L+1].
        first: codes of the first round of the optimal policy with 1..L rounds.
        schedule: codes of each round of the best static policy of L rounds.
    """

    curves: Float[Array, "3 rounds"]
    least: Float[Array, " rounds"]
    first: tuple[Codes, ...]
    schedule: tuple[Codes, ...]


class Values(NamedTuple):
    """Values of each history with 0..k rounds to go.

    Attributes:
        best: of the optimal policy [n, k+1].
        least: what the optimal policy has at least, were all that is cut free of risk [n, k+1].
        greedy: of the greedy policy [n, k+1].
        fixed: for j = 0..k the values of all schedules of j rounds, [n, A, ..., A].
    """

    best: Float[Array, "n k"]
    least: Float[Array, "n k"]
    greedy: Float[Array, "n k"]
    fixed: list[Array]


class Search:
    """Optimal, greedy and static policies evaluated on the same histories of one finite channel.

    Histories that asked the same codes are worked on together; codes that a symmetry of all that was
    asked so far maps to each other are asked once. The values of the schedules of all codes that are left
    come out of the same pass, their codes renamed by the symmetry.

    Source: THEORY.md section 7.3.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> setting = Setting(prior, principal(prior), "adaptive", 1, 1, 32.0, 0.1)
        >>> found = Search(setting, cut=0.0, points=2, more=1.0).result()
        >>> found.first, found.schedule
        (((1,),), ((1,),))
    """

    def __init__(self, setting: Setting, cut: float, points: int, more: float) -> None:
        """Take the system, the cut, H for the last round, and its growth for every round before it."""
        self.setting, self.channel = setting, FiniteChannel(setting)
        self.points, self.more, self.cut = points, more, cut * setting.prior.power()
        self.actions = list(combinations(range(len(setting.codebook)), setting.channels))
        self.index = {action: place for place, action in enumerate(self.actions)}
        self.symmetries = exchanges(setting.prior, setting.codebook)

    def half(self, rounds: int) -> int:
        """Points on either side of a mean field, with so many rounds to go."""
        return self.points + int(self.more * (rounds - 1))

    def result(self) -> Found:
        """Values at the start."""
        rounds, power = self.setting.rounds, self.setting.prior.power()
        values, choices = self._values(self.channel.start(), rounds, self.symmetries)
        static = np.array([fixed[0].min() for fixed in values.fixed])
        best, schedules = values.best[0], values.fixed[rounds][0]
        turns = np.unravel_index(int(schedules.argmin()), schedules.shape)
        return Found(
            # The same sums in another order: rounding must not turn the order of the curves round.
            np.stack([best, np.maximum(values.greedy[0], best), np.maximum(static, best)]) / power,
            values.least[0] / power,
            tuple(self.actions[int(choice)] for choice in choices),
            tuple(self.actions[int(turn)] for turn in turns),
        )

    def _values(
        self, histories: Histories, rounds: int, symmetries: list[Symmetry]
    ) -> tuple[Values, Int[Array, " k"]]:
        """Values of histories that asked the same codes, and the best first choice of the first of them."""
        count = len(self.actions)
        now = histories.risk()
        best, least, greedy = np.tile(now[:, None], (3, 1, rounds + 1))
        fixed = [np.tile(now.reshape(-1, *[1] * k), (1, *[count] * k)) for k in range(rounds + 1)]
        choices = np.zeros(rounds, dtype=np.int64)
        if not rounds:
            return Values(best, least, greedy, fixed), choices
        best[:, 1:] = least[:, 1:] = np.inf
        wanted = self._greedy(histories)
        for orbit in orbits(count, [self._on_actions(symmetry) for symmetry in symmetries]):
            action = min(orbit)
            after = self._expect(histories, self.actions[action], rounds, symmetries)
            closer = after.best[0] < best[0, 1:]
            choices[closer] = action
            best[:, 1:] = np.minimum(best[:, 1:], after.best)
            least[:, 1:] = np.minimum(least[:, 1:], after.least)
            asked = np.isin(wanted, list(orbit))
            greedy[asked, 1:] = after.greedy[asked]
            for member, to_first in orbit.items():
                for k in range(rounds):
                    fixed[k + 1][:, member] = _renamed(after.fixed[k], to_first)
        return Values(best, least, greedy, fixed), choices

    def _expect(self, histories: Histories, action: Codes, rounds: int, symmetries: list[Symmetry]) -> Values:
        """Expected values after one round that asks `action`, with 0..rounds-1 to go."""
        kept = [symmetry for symmetry in symmetries if all(map(symmetry.keeps, action))]
        parts = []
        for first in range(0, len(histories.reach), _CHUNK):
            some = histories.take(slice(first, first + _CHUNK))
            parts.append(self._hear(some, self.channel.open(some), action, rounds, kept))
        best, least, greedy = (np.concatenate([part[k] for part in parts]) for k in range(3))
        fixed = [np.concatenate([part.fixed[k] for part in parts]) for k in range(rounds)]
        return Values(best, least, greedy, fixed)

    def _hear(
        self,
        histories: Histories,
        opened: Opened,
        codes: Codes,
        rounds: int,
        symmetries: list[Symmetry],
    ) -> Values:
        """Expected values once the codes left in this round are heard, with 0..rounds-1 rounds to go."""
        branches = self.channel.ask(histories, opened, codes[0], self.half(rounds))
        outcome = branches.outcome(histories)
        best, least, greedy = np.tile(outcome[..., None], (3, 1, 1, rounds))
        fixed = [np.tile(outcome[..., None], len(self.actions) ** k) for k in range(rounds)]
        if rounds > 1 or len(codes) > 1:
            # The rest is stopped here, which any policy may do; at best it would be free of risk.
            least[..., 0 if len(codes) > 1 else 1 :] = 0.0
            which, answer = np.nonzero(histories.reach[:, None] * outcome > self.cut)
            if len(which):
                longer = branches.settle(histories, which, answer)
                if len(codes) > 1:
                    after = self._hear(longer, opened.take(which), codes[1:], rounds, symmetries)
                else:
                    after = self._values(longer, rounds - 1, symmetries)[0]
                chance = branches.joint[which, answer].sum(axis=1, keepdims=True)
                parts = (*after[:3], *(each.reshape(len(which), -1) for each in after.fixed))
                for whole, part in zip((best, least, greedy, *fixed), parts, strict=True):
                    whole[which, answer] = part * chance
        shape = [(len(self.actions),) * k for k in range(rounds)]
        totals = [each.sum(axis=1).reshape(-1, *axes) for each, axes in zip(fixed, shape, strict=True)]
        return Values(best.sum(axis=1), least.sum(axis=1), greedy.sum(axis=1), totals)

    def _greedy(self, histories: Histories) -> Int[Array, " n"]:
        """Index of the K codes of largest posterior variance, the lower index of equal ones."""
        directions = self.channel.directions
        along = histories.means @ directions.T
        centred = along - (histories.weights[:, None] @ along)
        variances = (histories.weights[..., None] * centred**2).sum(axis=1)
        if histories.forms is not None:
            forms = (histories.weights[..., None, None] * histories.forms).sum(axis=1)
            variances = variances + ((directions @ forms) * directions).sum(axis=2)
        chosen = np.zeros(variances.shape, dtype=bool)
        for _ in range(self.setting.channels):
            top = (variances >= variances.max(axis=1, keepdims=True) - _TIE).argmax(axis=1)
            chosen[np.arange(len(top)), top] = True
            variances[np.arange(len(top)), top] = -np.inf
        return np.array([self.index[tuple(np.flatnonzero(row).tolist())] for row in chosen])

    def _on_actions(self, symmetry: Symmetry) -> Int[Array, " A"]:
        """Image of each set of K codes."""
        return np.array([self.index[tuple(sorted(symmetry.codes[list(each)]))] for each in self.actions])


def _renamed(schedules: Float[Array, "n ..."], names: Int[Array, " A"]) -> Float[Array, "n ..."]:
    """Values of schedules when each of their rounds asks names[a] in place of a."""
    for axis in range(1, schedules.ndim):
        schedules = schedules.take(names, axis=axis)
    return schedules
