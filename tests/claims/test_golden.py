"""Nothing moves a bit by accident: runs, predictions and trainings are those that were recorded."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from runner.engines.local import LocalEngine
from runner.training.job import TRAINING_VERSION
from tests.golden import CASES, RECORD, instructions, losses, played, predicted

if TYPE_CHECKING:
    from runner.engines.ray import RayEngine

GOLDEN: dict[str, Any] = json.loads(RECORD.read_text())
# On other instructions logarithms and products may round otherwise, in the last digits.
SAME_INSTRUCTIONS = GOLDEN["instructions"] == instructions()


def assert_as_recorded(case: str, found: dict[str, Any]) -> None:
    recorded = {key: value for key, value in GOLDEN["cases"][case].items() if key != "theory"}
    if SAME_INSTRUCTIONS:
        assert found == recorded
    np.testing.assert_allclose(found["risk"], recorded["risk"], rtol=1e-9)
    assert found["tables"].keys() == recorded["tables"].keys()


def test_every_case_is_recorded() -> None:
    assert list(GOLDEN["cases"]) == list(CASES)


@pytest.mark.parametrize("block", [None, 1, 5])
@pytest.mark.parametrize("case", CASES)
def test_a_run_in_process_has_the_recorded_bits(case: str, block: int | None) -> None:
    assert_as_recorded(case, played(case, LocalEngine(block)))


@pytest.mark.ray
@pytest.mark.parametrize("case", CASES)
def test_a_run_on_ray_has_the_recorded_bits(case: str, ray_engine: "RayEngine") -> None:
    ray_engine.tokens_per_actor = 5
    assert_as_recorded(case, played(case, ray_engine))


@pytest.mark.parametrize("case", CASES)
def test_a_prediction_is_the_recorded_one(case: str) -> None:
    found, recorded = predicted(case), GOLDEN["cases"][case]["theory"]
    assert (found is None) == (recorded is None)
    if found is not None:
        np.testing.assert_allclose(found, recorded, rtol=1e-9, atol=1e-15)


def test_short_trainings_have_the_losses_recorded_for_this_version() -> None:
    """Where this fails trained weights that users kept are no longer what training gives: raise
    TRAINING_VERSION and record anew, with `python -m tests.golden`."""
    assert GOLDEN["training version"] == TRAINING_VERSION
    found, recorded = losses(), GOLDEN["losses"]
    assert found.keys() == recorded.keys()
    for name, loss in found.items():
        assert loss == pytest.approx(recorded[name], rel=1e-6), name
