"""What a simulation adds up over batches of prompts; kept beside the trace, a stopped run resumes from it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from agents.kernels import AVAILABLE
from agents.kernels import sums as loops
from analysis.errors import UnreadableError
from analysis.traces.location import Place
from runner.engines.base import Outcome
from runner.storage.arrays import SUFFIX, read_arrays, remove_arrays, write_arrays

_FILE = f"totals{SUFFIX}"
_SUMS = ("position_sum", "position_square", "clipped", "scalars", "seconds")


@dataclass(eq=False)
class Totals:
    """Sums over the prompts that were played, in their order.

    Attributes:
        prompt_risk: relative risk, mean over positions; what was not played yet is undefined [L + 1, B].
        position_sum, position_square: of the relative error, and of its square, over prompts [L + 1, N].
        clipped: scalars that did not fit [L + 1].
        scalars: scalars sent [L + 1].
        seconds: wall-clock time [L + 1].
        prompts: played to the end.
        batches: that they came in.
    """

    prompt_risk: Float[np.ndarray, "rounds B"]
    position_sum: Float[np.ndarray, "rounds N"]
    position_square: Float[np.ndarray, "rounds N"]
    clipped: Int[np.ndarray, " rounds"]
    scalars: Int[np.ndarray, " rounds"]
    seconds: Float[np.ndarray, " rounds"]
    prompts: int = 0
    batches: int = 0

    @classmethod
    def none(cls, rounds: int, tokens: int, prompts: int) -> "Totals":
        """Nothing played yet; `rounds` counts round 0."""
        return cls(
            np.zeros((rounds, prompts)), np.zeros((rounds, tokens)), np.zeros((rounds, tokens)),
            np.zeros(rounds, dtype=np.int64), np.zeros(rounds, dtype=np.int64), np.zeros(rounds),
        )  # fmt: skip

    def add(self, outcome: Outcome, error: Float[np.ndarray, "N B"]) -> Float[np.ndarray, " B"]:
        """Add one round of the next batch; gives its relative risk by prompt.

        Args:
            outcome: of the round.
            error: |w - w_i|^2 / E|w|^2 of its report.
        """
        index, risk = outcome.round, _mean_over_positions(error)
        self.prompt_risk[index, self.prompts : self.prompts + len(risk)] = risk
        self.position_sum[index] += error.sum(axis=1)
        self.position_square[index] += (error**2).sum(axis=1)
        self.clipped[index] += int(outcome.clipped.sum())
        self.scalars[index] += outcome.scalars
        self.seconds[index] += outcome.seconds
        return risk

    def end_batch(self, prompts: int) -> None:
        """All rounds of a batch of so many prompts were added."""
        self.prompts += prompts
        self.batches += 1

    def save(self, folder: Place) -> None:
        """Keep them in a run's folder: whole or not at all."""
        arrays = {name: getattr(self, name) for name in _SUMS}
        arrays["prompt_risk"] = self.prompt_risk[:, : self.prompts]
        write_arrays(folder / _FILE, {"prompts": self.prompts, "batches": self.batches}, arrays)

    def load(self, folder: Place) -> None:
        """Resume from what was kept in a run's folder, if anything was.

        Raises:
            UnreadableError: if the file is damaged, or of another simulation.
        """
        try:
            header, arrays = read_arrays(folder / _FILE)
        except FileNotFoundError:
            return
        kept = {name: getattr(self, name) for name in _SUMS}
        try:
            played, batches = int(header["prompts"]), int(header["batches"])
            kept["prompt_risk"] = self.prompt_risk[:, :played]
            for name, target in kept.items():
                if (arrays[name].shape, arrays[name].dtype) != (target.shape, target.dtype):
                    raise ValueError(f"{name} has shape {arrays[name].shape}, not {target.shape}")
        except (KeyError, TypeError, ValueError) as failure:
            raise UnreadableError(
                f"{folder / _FILE} is damaged or of another simulation ({failure})"
            ) from None
        for name, target in kept.items():
            target[...] = arrays[name]
        self.prompts, self.batches = played, batches


def forget(folder: Place) -> None:
    """Remove what was kept."""
    remove_arrays(folder / _FILE)


def _mean_over_positions(error: Float[np.ndarray, "N B"]) -> Float[np.ndarray, " B"]:
    """Mean over positions, added in their order: numpy's own sum depends on the number of prompts."""
    total = np.zeros(error.shape[1])
    if AVAILABLE:
        loops.add_rows(np.ascontiguousarray(error), total)
        return total / len(error)
    for row in error:
        total += row
    return total / len(error)
