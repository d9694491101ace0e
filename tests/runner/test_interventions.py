"""Changes of workspaces that do not fit are refused before anything starts; failing ones leave no trace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jaxtyping import Int

from agents.policies.base import Mistake
from agents.policies.intervened import Intervened, Patch, Steer
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines import Engine
from runner.engines.local import LocalEngine
from runner.errors import RunError, UsageError
from runner.simulation.resume import resume
from runner.simulation.simulate import simulate
from tests.agents.test_policies import random_transformer

if TYPE_CHECKING:
    from runner.engines.ray import RayEngine

SMALL = Experiment().with_values(
    {"task.tokens": 8, "task.prompts": 10, "run.rounds": 3, "channel.noise": 1.0}
)
BARE = build(SMALL).policy
SAME = Patch(np.arange(10))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Intervened(BARE, -1, SAME), "round = "),
        (lambda: Patch(np.array([0, 2])), "donors = "),
        (lambda: Patch(np.array([0, -1])), "donors = "),
        (lambda: Patch(np.arange(2), np.array([-1])), "tokens = "),
        (lambda: Patch(np.arange(2), np.array([], dtype=int)), "tokens = "),
        (lambda: Steer(np.array([[np.nan]])), "shift = "),
        (lambda: Steer(np.zeros((3, 1)), np.array([-1])), "tokens = "),
    ],
)
def test_what_fits_no_experiment_is_refused_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.* is not possible; possible: "):
        make()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Intervened(BARE, 4, SAME), r"policy\.round = 4 .* 0 to 3"),
        (Intervened(BARE, 1, Patch(np.arange(10), np.array([13]))), r"policy\.change\.tokens = .*0 to 7"),
        (Intervened(BARE, 1, Steer(np.ones((6, 1)), np.array([0, 8]))), r"policy\.change\.tokens = .*0 to 7"),
        (Intervened(Intervened(BARE, 9, SAME), 1, SAME), r"policy\.policy\.round = 9 .* 0 to 3"),
    ],
)
def test_rounds_and_tokens_that_are_not_played_are_refused_when_built(policy: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(SMALL, policy=policy)


@pytest.mark.parametrize(
    ("policy", "given", "words"),
    [
        (Intervened(BARE, 1, Patch(np.arange(9))), {}, "'9 donors' .* 10 donors, one for each prompt"),
        (Intervened(BARE, 1, SAME), {"prompts": range(5, 9)}, "'10 donors' .* 4 donors, one for each prompt"),
        (Intervened(BARE, 1, Steer(np.ones((6, 9)))), {}, "'9 vectors' .* one for all prompts, or 10"),
    ],
)
def test_donors_of_other_prompts_are_refused_before_anything_is_stored(
    policy: Any, given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        simulate(SMALL, policy=policy, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_donors_are_counted_among_the_prompts_that_are_played_together(tmp_path: Path) -> None:
    batches = SMALL.with_values({"run.batch": 6})
    with pytest.raises(UsageError, match=r"'10 donors' .* 4 donors.* at a time: see run\.batch"):
        simulate(batches, policy=Intervened(BARE, 1, SAME))

    def stop(prompts: range, round: int) -> None:
        raise KeyboardInterrupt

    pairs = SMALL.with_values({"run.batch": 5})
    with pytest.raises(KeyboardInterrupt):
        simulate(pairs, policy=Intervened(BARE, 1, Patch(np.arange(5))), out=tmp_path, on_round=stop)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UsageError, match="5 donors, one for each prompt"):
        resume(folder, policy=Intervened(BARE, 1, SAME))
    resumed = resume(folder, policy=Intervened(BARE, 1, Patch(np.arange(5))))
    assert (resumed.prompt_risk == simulate(SMALL, policy=BARE).prompt_risk).all()


@pytest.mark.parametrize("prompts", [None, range(30, 40)])
@pytest.mark.parametrize("round", range(4))
def test_patching_every_prompt_with_itself_changes_no_bit_of_a_run(round: int, prompts: range | None) -> None:
    bare = simulate(SMALL, policy=BARE, prompts=prompts)
    patched = simulate(SMALL, policy=Intervened(BARE, round, SAME), prompts=prompts)
    assert (patched.prompt_risk == bare.prompt_risk).all()
    assert (patched.position_risk == bare.position_risk).all()


@dataclass(frozen=True)
class Fitting:
    """A change of a user's own that says what it needs."""

    tokens: Int[np.ndarray, " T"] | None = None

    def mistakes(self, rounds: int, tokens: int, prompts: int | None) -> Sequence[Mistake]:
        return [Mistake("mine", prompts, "eleven prompts")] if prompts not in (None, 11) else []

    def __call__(self, state: Any, positions: Int[np.ndarray, " n"]) -> Any:
        return state


def test_a_change_of_ones_own_is_asked_what_does_not_fit() -> None:
    policy = Intervened(BARE, 1, Fitting())
    with pytest.raises(UsageError, match=r"policy\.change\.mine = 10 .* eleven prompts"):
        simulate(SMALL, policy=policy)
    assert (simulate(SMALL, policy=policy, prompts=range(11)).risk >= 0).all()


@dataclass(frozen=True)
class Failing:
    """A change that spoils the workspace of a token in place, and raises."""

    failure: Exception
    tokens: Int[np.ndarray, " T"] | None = None

    def __call__(self, state: Any, positions: Int[np.ndarray, " n"]) -> Any:
        if 5 in positions:
            if state.vector.flags.writeable:
                state.vector[:] = 7.0
            raise self.failure
        return state


def check_that_a_failure_leaves_the_engine_clean(engine: Engine) -> None:
    expected = simulate(SMALL, engine=engine)
    for round, failure in ((0, IndexError("out of mine")), (2, RuntimeError("out of mine"))):
        broken = Intervened(BARE, round, Failing(failure))
        with pytest.raises(RunError, match=f"round {round} failed .*out of mine"):
            simulate(SMALL, engine=engine, policy=broken)
        again = simulate(SMALL, engine=engine)
        assert (again.prompt_risk == expected.prompt_risk).all()
        bare = simulate(SMALL, engine=engine, policy=BARE)
        assert (bare.prompt_risk == simulate(SMALL, policy=BARE).prompt_risk).all()


@pytest.mark.parametrize("block", [None, 3])
def test_a_change_that_fails_in_a_run_leaves_the_next_run_clean(block: int | None) -> None:
    check_that_a_failure_leaves_the_engine_clean(LocalEngine(block))


@pytest.mark.ray
def test_a_change_that_fails_on_ray_leaves_the_next_run_clean(ray_engine: "RayEngine") -> None:
    ray_engine.tokens_per_actor = 3
    check_that_a_failure_leaves_the_engine_clean(ray_engine)


def test_a_workspace_that_cannot_be_changed_is_told_in_words() -> None:
    with pytest.raises(
        RunError, match="workspace of type Workspace cannot be moved by a vector of 6 numbers"
    ):
        simulate(SMALL, policy=Intervened(BARE, 1, Steer(np.ones((6, 1)))))
    learned = random_transformer(7, 1, 3)
    with pytest.raises(RunError, match=r"workspace of shape .* cannot be moved by a vector of 99 numbers"):
        simulate(SMALL, policy=Intervened(learned, 1, Steer(np.ones((99, 1)))))


def test_a_run_that_fails_in_a_change_is_kept_up_to_there(tmp_path: Path) -> None:
    broken = Intervened(BARE, 2, Failing(IndexError("out of mine")))
    with pytest.raises(RunError, match=r"resume it with: runner\.resume\(.*policy=\.\.\.\)"):
        simulate(SMALL, policy=broken, out=tmp_path)
