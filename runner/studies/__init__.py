"""Studies: what is put side by side; a new one is a module here and an entry in `STUDIES`."""

from runner.config.studies import Comparison
from runner.studies import ablation, comparison, locality
from runner.studies.base import Findings, Session, Study

# Of a file with several tables the first that is found here counts.
STUDIES: dict[str, Study] = {
    "locality": Study(lambda file: file.locality is not None, locality.prepare),
    "ablation": Study(lambda file: file.ablation is not None, ablation.prepare),
    "compare": Study(lambda file: True, comparison.prepare),
}


def study_of(file: Comparison) -> Study:
    """The study that a file asks for: of graphs, of a transformer's parts, or else of policies.

    Example:
        >>> study_of(Comparison()) is STUDIES["compare"]
        True
    """
    return next(study for study in STUDIES.values() if study.asked(file))


__all__ = ["STUDIES", "Findings", "Session", "Study", "study_of"]
