"""Which comparison a file asks for: of policies, of graphs, or of a transformer's parts."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from runner.display import Display
from runner.engine import Engine
from runner.plan import Comparison


class Found(Protocol):
    """What a comparison gives."""

    def answer(self) -> dict[str, object]:
        """What `compare --json` reports."""
        ...

    def show(self) -> None:
        """Print it."""
        ...


class Study(NamedTuple):
    """One kind of comparison.

    Attributes:
        check: refuses what cannot run, before anything starts.
        run: of comparison, engine, folder, workers, display and name.
    """

    check: Callable[[Comparison], None]
    run: Callable[[Comparison, Engine, Path, int, Display, str], Found]


def study_of(comparison: Comparison) -> Study:
    """The study of graphs with a [locality] table, of parts with an [ablation] table, else of policies."""
    if comparison.locality is not None:
        from runner.locality import check_locality, compare_locality

        return Study(check_locality, compare_locality)
    if comparison.ablation is not None:
        from runner.ablation import check_ablation, compare_ablations

        return Study(check_ablation, compare_ablations)
    from runner.comparison import check_plan, compare

    return Study(check_plan, compare)
