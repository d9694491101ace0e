"""Studies: what is put side by side; a new one is a module here and an entry in `STUDIES`."""

from collections.abc import Callable

from runner.config.studies import Comparison
from runner.studies.base import Findings, Session, Study


def _locality(file: Comparison) -> Callable[[Session], Findings]:
    from runner.studies.locality import prepare

    return prepare(file)


def _ablation(file: Comparison) -> Callable[[Session], Findings]:
    from runner.studies.ablation import prepare

    return prepare(file)


def _comparison(file: Comparison) -> Callable[[Session], Findings]:
    from runner.studies.comparison import prepare

    return prepare(file)


# Of a file with several tables the first that is found here counts; torch is imported when one is prepared.
STUDIES: dict[str, Study] = {
    "locality": Study(lambda file: file.locality is not None, _locality),
    "ablation": Study(lambda file: file.ablation is not None, _ablation),
    "compare": Study(lambda file: True, _comparison),
}


def study_of(file: Comparison) -> Study:
    """The study that a file asks for: of graphs, of a transformer's parts, or else of policies.

    Example:
        >>> study_of(Comparison()) is STUDIES["compare"]
        True
    """
    return next(study for study in STUDIES.values() if study.asked(file))


__all__ = ["STUDIES", "Findings", "Session", "Study", "study_of"]
