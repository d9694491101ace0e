"""Whatever process is lost, and whenever: the bits are the same, and no workspace is another one's."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from runner.config.experiment import Experiment
from runner.engines.actors import Hub, OutOfStepError, TokenActor
from runner.engines.local import LocalEngine
from runner.errors import RunError
from runner.simulation.simulate import Simulation, simulate

if TYPE_CHECKING:
    from runner.engines.ray import RayEngine

pytestmark = pytest.mark.ray
ROUNDS = 3
GIVEN = {
    "task.tokens": 6, "task.prompts": 5, "run.rounds": ROUNDS, "channel.noise": 0.5, "policy.repeats": 0.0,
    "policy.order": "widest", "run.engine": "ray",
}  # fmt: skip
GRAPHS: dict[str, dict[str, object]] = {
    "complete": {},
    "ring": {"graph.kind": "ring", "graph.degree": 2},
    "causal, Metropolis": {"graph.kind": "causal", "graph.mixing": "metropolis"},
}


def mortal(folder: Path, victim: str, round: int, lives: int) -> tuple[type, type]:
    """An actor of the tokens from `victim`, or a hub, that is killed in a round as often as is said."""

    def die(name: str, here: int) -> None:
        deaths = folder / "deaths"
        count = len(deaths.read_text()) if deaths.exists() else 0
        if name == victim and here == round and count < lives:
            deaths.write_text("x" * (count + 1))
            os.kill(os.getpid(), signal.SIGKILL)

    class MortalActor(TokenActor):
        def _end(self, round: int, hear: Any) -> Any:
            assert self._tokens is not None
            first = self._tokens._drawn[0].tokens.positions[0]
            if round % 2:  # before the step, and after it
                die(str(first), round)
            packet = super()._end(round, hear)
            die(str(first), round)
            return packet

    class MortalHub(Hub):
        def __init__(self) -> None:
            super().__init__()
            self.exchanged = 0

        def exchange(self, key: str, *packets: bytes) -> Any:
            die("hub", self.exchanged)
            self.exchanged += 1
            return super().exchange(key, *packets)

    return MortalActor, MortalHub


@pytest.fixture
def play(ray_engine: "RayEngine", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Simulate with actors of which one is killed; theirs are ended, others started for the next test."""
    from runner.engines import ray as module

    def run(
        experiment: Experiment, victim: str, round: int, lives: int = 1, observed: bool = False
    ) -> tuple[Simulation, int]:
        actor, hub = mortal(tmp_path, victim, round, lives)
        monkeypatch.setattr(module, "TokenActor", actor)
        monkeypatch.setattr(module, "Hub", hub)
        ray_engine._end_actors()
        try:
            observer = (lambda batch, outcome: None) if observed else None
            done = simulate(experiment, engine=ray_engine, observer=observer)
        finally:
            monkeypatch.undo()
            ray_engine._end_actors()
        deaths = tmp_path / "deaths"
        return done, len(deaths.read_text()) if deaths.exists() else 0

    before, ray_engine.tokens_per_actor = ray_engine.tokens_per_actor, 3
    yield run
    ray_engine.tokens_per_actor = before


MOMENTS = [(victim, round) for victim in ("0", "3") for round in range(ROUNDS + 1)]
MOMENTS += [("hub", round) for round in range(ROUNDS)]  # nothing is exchanged after the last
# Each kill waits for a process to start; those of all rounds on all graphs are for a quiet machine.
_DEFAULT = {"complete": [("0", 0), ("3", ROUNDS), ("hub", 1)]}


@pytest.mark.parametrize(
    ("graph", "victim", "round"),
    [
        pytest.param(
            graph,
            *moment,
            marks=() if moment in _DEFAULT.get(graph, [("3", 1), ("hub", 1)]) else pytest.mark.slow,
        )
        for graph in GRAPHS
        for moment in MOMENTS
    ],
)
def test_a_process_killed_in_any_round_changes_no_bit(graph: str, victim: str, round: int, play: Any) -> None:
    experiment = Experiment().with_values({**GIVEN, **GRAPHS[graph]})
    result, deaths = play(experiment, victim, round)
    assert deaths == 1, "it was killed"
    np.testing.assert_array_equal(result.prompt_risk, simulate(experiment, engine=LocalEngine()).prompt_risk)


@pytest.mark.parametrize("victim", ["0", "hub"])
def test_reports_that_go_apart_survive_too(victim: str, play: Any) -> None:
    experiment = Experiment().with_values({**GIVEN, **GRAPHS["ring"]})
    result, deaths = play(experiment, victim, 2, observed=True)
    assert deaths == 1
    np.testing.assert_array_equal(result.prompt_risk, simulate(experiment, engine=LocalEngine()).prompt_risk)


def test_a_process_that_is_killed_again_and_again_comes_back(play: Any) -> None:
    experiment = Experiment().with_values(GIVEN)
    result, deaths = play(experiment, "0", 2, lives=4)
    assert deaths == 4
    np.testing.assert_array_equal(result.prompt_risk, simulate(experiment, engine=LocalEngine()).prompt_risk)


def test_what_was_heard_is_kept_within_bounds(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first rounds were let go, the batch is played anew."""
    from runner.engines import rounds as module

    monkeypatch.setattr(module, "_KEPT", 1)
    experiment = Experiment().with_values({**GIVEN, "run.rounds": 6})
    result, deaths = play(experiment, "3", 5)
    assert deaths == 1
    np.testing.assert_array_equal(result.prompt_risk, simulate(experiment, engine=LocalEngine()).prompt_risk)


def test_a_process_that_never_comes_back_ends_the_run(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.engines import ray as module

    monkeypatch.setattr(module, "_RESTARTS", 1)
    with pytest.raises(RunError, match=r"died.*new starts|actor"):
        play(Experiment().with_values(GIVEN), "0", 1, lives=9)


def test_an_actor_says_that_it_is_out_of_step() -> None:
    from runner.built import build
    from runner.engines.actors import Play
    from runner.engines.base import rows_of
    from runner.engines.packets import Layout

    built = build(Experiment().with_values({**GIVEN, "run.engine": "local"}))
    layout = Layout(built.system.policy.codes, 1, 5, "u1", built.channel.wire_type.str)
    batch = Play("a", built.system, range(5), layout, False, False, False, True)
    actor, hub, rows = TokenActor(), Hub(), rows_of(built.mixing)
    with pytest.raises(OutOfStepError):
        actor.step("a", 1, b"")
    begun = actor.start(batch, np.arange(6), rows)
    assert (actor.reached("a"), actor.reached("b")) == (0, -1)
    with pytest.raises(OutOfStepError):
        hub.exchange("a", begun)
    hub.start("a", layout, False, rows, None)
    field, packets = hub.exchange("a", begun)
    assert packets == [begun]
    told = actor.step("a", 1, field)
    assert actor.step("a", 1, field) is told, "asked again it says the same"
    for key, round in (("a", 3), ("a", 0), ("b", 2)):
        with pytest.raises(OutOfStepError):
            actor.step(key, round, field)
