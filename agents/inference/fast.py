"""The exact law of a field by compiled loops: the numbers of `ExactInference`, bit for bit."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from agents.channel import Field
from agents.inference import exact
from agents.inference.answers import Answers
from agents.inference.exact import ExactBelief, ExactInference
from agents.kernels import belief as reading
from agents.kernels import exact as law
from agents.kernels import messages
from agents.kernels.elementary import addresses

Array = np.ndarray
_LANES = 8  # rows of tables are filled up to a multiple of what a processor adds at once


NOTHING = Answers(0, 0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class FastExactInference(ExactInference):
    """`ExactInference` by compiled loops.

    Attributes:
        fields: number of fields for which there is room at first.

    Source: THEORY.md section 5, the exact law of a field.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(1, 2, 1.0, 1)
        >>> rule = (prior, principal(prior), 0.1, 0.0)
        >>> field = Field(np.zeros((1, 1, 1), int), *np.full((2, 1, 1, 1), 0.7), np.ones((1, 1)))
        >>> means = [
        ...     inference.estimate(inference.hear(inference.start(1, 1), field, None, 1)).item()
        ...     for inference in (FastExactInference(*rule), ExactInference(*rule))
        ... ]
        >>> means[0] == means[1]
        True
    """

    fields: int = 4

    def start(self, tokens: int, prompts: int, positions: Int[Array, " n"] | None = None) -> ExactBelief:
        """The prior, before anything was heard."""
        start = super().start(tokens, prompts, positions)
        answers = None
        if self.grouped:
            room = max(self.fields, 1)
            answers = Answers(room, tokens, self.prior.dim, len(self.prior.weights), prompts)
        weights, mean = super().atoms(start), super().estimate(start)
        return start._replace(answers=answers, weights=weights, mean=mean)

    def hear(
        self, belief: ExactBelief, field: Field, control: Float[Array, "n d B"] | None, round: int
    ) -> ExactBelief:
        """Update on the K means of one round, each about a code of its own."""
        tokens, _, prompts = belief.log_weights.shape
        if control is None:
            control = np.zeros((tokens, self.prior.dim, prompts))
        control = np.ascontiguousarray(control)
        _check(field, (tokens, prompts), len(self.codebook))
        spread = np.full((tokens, prompts), self.label_noise**2)
        if self.disagreement is not None:
            spread += self.disagreement[round - 1][belief.positions]
        repeats = 1.0 if self.grouped or self.repeats is None else self.repeats[round - 1]
        for channel in range(field.codes.shape[1]):
            effective = np.ascontiguousarray(field.effective[:, channel])
            noise = np.full(effective.shape, max(self.channel_variance, exact.LEAST_CHANNEL))
            if field.relayed is not None:
                noise += self.channel_variance * (field.relayed[:, channel] - 1.0)
            code = np.ascontiguousarray(field.codes[:, channel], dtype=np.int64)
            value = np.ascontiguousarray(field.values[:, channel])
            belief = self._hear_one(belief, code, value, effective, noise, spread, control, repeats)
        return belief

    def atoms(self, belief: ExactBelief) -> Float[Array, "n M B"]:
        """Posterior probability of each atom."""
        return super().atoms(belief) if belief.weights is None else belief.weights

    def told(
        self, belief: ExactBelief, inputs: Float[Array, "n d B"], labels: Float[Array, "n B"]
    ) -> ExactBelief:
        """The belief with one whole example; see `ExactInference.told`."""
        return super().told(belief._replace(weights=None, mean=None), inputs, labels)

    def estimate(self, belief: ExactBelief) -> Float[Array, "n d B"]:
        """Posterior mean of w."""
        if belief.mean is not None:
            return belief.mean
        weights = self.atoms(belief)
        result = np.empty((weights.shape[0], self.prior.dim, weights.shape[2]))
        reading.mean(weights, self._by_atom, result)
        return result

    def variances(self, belief: ExactBelief) -> Float[Array, "n C B"]:
        """Posterior variance u' Cov[w] u along each direction u of the codebook."""
        weights = self.atoms(belief)
        result = np.empty((weights.shape[0], len(self.codebook), weights.shape[2]))
        reading.variances(weights, self._along_by_atom, result)
        return result

    @cached_property
    def _by_atom(self) -> Float[Array, "M lanes"]:
        return _filled(self.prior.atoms)

    @cached_property
    def _along_by_atom(self) -> Float[Array, "M lanes"]:
        return _filled(self._along)

    @cached_property
    def _tables(self) -> tuple[Float[Array, "d M"], Float[Array, "C d"], Float[Array, "C M"]]:
        """Atoms, directions, and u.a of each."""
        parts = self.prior.atoms.T, self.codebook.directions, self._along.T
        return tuple(np.array(part, order="C") for part in parts)  # type: ignore[return-value]

    def _hear_one(
        self,
        belief: ExactBelief,
        code: Int[Array, "n B"],
        value: Float[Array, "n B"],
        effective: Float[Array, "n B"],
        noise: Float[Array, "n B"],
        spread: Float[Array, "n B"],
        control: Float[Array, "n d B"],
        repeats: float,
    ) -> ExactBelief:
        """Update on one field."""
        t = belief.heard
        answers: Answers | None = belief.answers
        if answers is not None:
            answers = answers.after(t)
        nodes, logs = exact.RULE
        atoms, directions, table = self._tables
        log_weights, times, alone = belief.log_weights.copy(), belief.times.copy(), belief.alone
        if ((effective > 0) & (effective <= exact.ALONE)).any() or not alone.flags.writeable:
            alone = alone.copy()
        weights, mean = np.empty(log_weights.shape), np.empty(control.shape)
        room = NOTHING if answers is None else answers
        law.hear(
            addresses(), answers is not None, t, code, value, effective, noise, spread, control, atoms,
            directions, table, nodes, logs, self.label_noise**2, exact.RESOLUTION, repeats, exact.ALONE,
            self._by_atom, room.codes, room.fields, room.controls, room.scales, room.innovations,
            room.evidences, room.rows, log_weights, alone, times, weights, mean,
        )  # fmt: skip
        if answers is not None:
            answers.written = t + 1
        return ExactBelief(log_weights, alone, times, belief.positions, answers, weights, mean, t + 1)


def _check(field: Field, shape: tuple[int, int], codes: int) -> None:
    """Refuse what a loop would read beside its arrays.

    Raises:
        ValueError: if the field is not one of these tokens and prompts.
        IndexError: if it is about a code that does not exist.
    """
    for part in (field.codes, field.values, field.effective):
        if (part.shape[0], part.shape[2]) != shape or part.shape != field.codes.shape:
            raise ValueError(f"a field of shape {part.shape} for {shape[0]} tokens and {shape[1]} prompts")
    if not messages.within(np.ascontiguousarray(field.codes, dtype=np.int64), codes):
        raise IndexError(f"a field is about a code that is not from 0 to {codes - 1}")


def _filled(table: Float[Array, "M m"]) -> Float[Array, "M lanes"]:
    """The table with columns of zeros behind."""
    filled = np.zeros((table.shape[0], -(-table.shape[1] // _LANES) * _LANES))
    filled[:, : table.shape[1]] = table
    return filled
