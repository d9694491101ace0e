"""Studies: what is put side by side; a new one is a module here and an entry in `STUDIES`."""

from collections.abc import Callable
from importlib import import_module

from runner.config.studies import Comparison
from runner.studies.base import Findings, Session, Study


def _module(name: str) -> Callable[[Comparison], Callable[[Session], Findings]]:
    """What prepares the study of a module here, which is imported when it is asked for, and torch with it."""
    return lambda file: import_module(f"runner.studies.{name}").prepare(file)


# Of a file with several tables the first that is found here counts.
STUDIES: dict[str, Study] = {
    "locality": Study(lambda file: file.locality is not None, _module("locality")),
    "causal": Study(lambda file: file.causal is not None, _module("causal")),
    "ablation": Study(lambda file: file.ablation is not None, _module("ablation")),
    "compare": Study(lambda file: True, _module("comparison")),
}


def study_of(file: Comparison) -> Study:
    """The study that a file asks for: of graphs, of a transformer's parts, or else of policies.

    Example:
        >>> study_of(Comparison()) is STUDIES["compare"]
        True
    """
    return next(study for study in STUDIES.values() if study.asked(file))


__all__ = ["STUDIES", "Findings", "Session", "Study", "study_of"]
