"""Ray and the in-process engine give the same bits, whatever an actor holds and whoever is killed."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest

from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.base import Engine, Outcome
from runner.engines.local import LocalEngine
from runner.errors import RunError, UsageError
from runner.simulation.simulate import Simulation, simulate
from tests.agents.test_policies import random_transformer
from topology.families import FAMILIES
from topology.partition import few_cuts

if TYPE_CHECKING:
    from runner.engines.ray import RayEngine

pytestmark = pytest.mark.ray

EXPERIMENT = Experiment().with_values(
    {"task.prompts": 30, "channel.noise": 1.0, "channel.bits": 16, "run.rounds": 3, "run.trace": "full"}
)
CASES: dict[str, dict[str, object]] = {
    "adaptive": {},
    "static pooled": {"policy.kind": "static", "policy.order": "pooled", "policy.control_variate": False},
    "matched gaussian, two channels": {"prior.kind": "matched_gaussian", "channel.channels": 2},
    "causal": {"graph.kind": "causal"},
    "small world": {"graph.kind": "small_world", "graph.mixing": "metropolis"},
    "gossip, ring": {"policy.kind": "gossip", "policy.rounds_per_scale": 2, "graph.kind": "ring"},
    "gradient, star": {"policy.kind": "gradient", "graph.kind": "star"},
    "flood, barbell": {"policy.kind": "flood", "graph.kind": "barbell"},
    "learned": {"policy.kind": "learned"},
    "learned, causal": {"policy.kind": "learned", "graph.kind": "causal"},
}


def run(experiment: Experiment, engine: Engine, out: Path) -> Simulation:
    learned = random_transformer(7, 1, 3) if experiment.policy.kind == "learned" else None
    return simulate(experiment, engine=engine, out=out, learned=learned)


def tables(folder: Path | None) -> dict[str, Any]:
    """All tables of a run but the clock."""
    assert folder is not None
    return {
        path.relative_to(folder).as_posix(): pq.read_table(path)
        for path in sorted(folder.rglob("*.parquet"))
        if path.name != "timing.parquet"
    }


def assert_same_tables(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, table in left.items():
        # Columns of NaN (no belief) are compared as bytes, so that equal NaN are equal.
        for column in table.column_names:
            ours, theirs = table[column].combine_chunks(), right[name][column].combine_chunks()
            for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
                assert (mine is None) == (other is None)
                assert mine is None or mine.equals(other), (name, column)


@pytest.mark.parametrize("per_actor", [1, 5, 32])
@pytest.mark.parametrize("case", CASES)
def test_traces_are_bit_identical(case: str, per_actor: int, ray_engine: "RayEngine", tmp_path: Path) -> None:
    experiment = EXPERIMENT.with_values(CASES[case])
    expected = run(experiment, LocalEngine(), tmp_path / "local")
    ray_engine.tokens_per_actor = per_actor
    result = run(experiment, ray_engine, tmp_path / "ray")
    found = tables(result.folder)
    assert {"rounds.parquet"} < found.keys()
    assert {name.split("/")[0] for name in found} >= {"messages", "workspaces", "prompts"}
    assert_same_tables(found, tables(expected.folder))


@pytest.mark.parametrize("policy", ["adaptive", "gossip", "gradient", "flood"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_risks_are_bit_identical_on_every_graph(kind: str, policy: str, ray_engine: "RayEngine") -> None:
    experiment = EXPERIMENT.with_values(
        {"graph.kind": kind, "graph.window": 6, "policy.kind": policy, "policy.rounds_per_scale": 2}
    ).with_values({"task.tokens": 14, "task.prompts": 10, "run.trace": "none"})
    ray_engine.tokens_per_actor = 3
    result = simulate(experiment, engine=ray_engine)
    expected = simulate(experiment, engine=LocalEngine())
    np.testing.assert_array_equal(result.prompt_risk, expected.prompt_risk)
    assert result.scalars.tolist() == expected.scalars.tolist()


def test_more_actors_than_memory_are_refused_before_one_is_started(ray_engine: "RayEngine") -> None:
    ray_engine.tokens_per_actor = 1
    before = list(ray_engine.actors)
    with pytest.raises(UsageError, match=r"run\.tokens_per_actor = 1 .* or more here"):
        simulate(EXPERIMENT.with_values({"task.tokens": 10_000, "task.prompts": 1}), engine=ray_engine)
    assert ray_engine.actors == before


def test_blocks_that_are_not_consecutive_change_no_bit(ray_engine: "RayEngine") -> None:
    """A cycle whose neighbours stand far apart: few edges are cut, and positions keep their place."""
    order = np.random.default_rng(0).permutation(24).tolist()
    graph = nx.relabel_nodes(nx.cycle_graph(24), dict(enumerate(order)))
    experiment = EXPERIMENT.with_values({"task.tokens": 24})
    expected = simulate(experiment, graph=graph, engine=LocalEngine())
    parts = few_cuts(played(experiment, graph)[1].weights, 6)
    assert not (np.concatenate(parts) == np.arange(24)).all()
    for per_actor in (6, "auto"):
        ray_engine.tokens_per_actor = per_actor
        result = simulate(experiment, graph=graph, engine=ray_engine)
        np.testing.assert_array_equal(result.prompt_risk, expected.prompt_risk)
        np.testing.assert_array_equal(result.position_risk, expected.position_risk)
        given, wanted = played(experiment, graph), {"detail": True, "messages": True}
        for mine, theirs in zip(
            ray_engine.play(*given, **wanted), LocalEngine().play(*given, **wanted), strict=True
        ):
            assert (mine.sent is None) == (theirs.sent is None)
            for one, other in zip(leaves(mine), leaves(theirs), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(threads: int) -> None:
    result = simulate(EXPERIMENT, engine=LocalEngine(block=3, threads=threads))
    np.testing.assert_array_equal(result.prompt_risk, simulate(EXPERIMENT, engine=LocalEngine()).prompt_risk)


def test_a_thread_that_fails_ends_the_run() -> None:
    weights = random_transformer(7, 1, 3)
    broken, engine = replace(weights, readout=weights.readout * 1e308), LocalEngine(block=1, threads=4)
    with pytest.raises(RunError, match="not finite"), np.errstate(all="ignore"):
        simulate(EXPERIMENT.with_values({"policy.kind": "learned"}), engine=engine, learned=broken)


def played(experiment: Experiment, graph: "nx.Graph[Any]") -> tuple[Any, Any, range]:
    built = build(experiment, graph)
    return built.system, built.mixing, range(experiment.task.prompts)


def leaves(outcome: Outcome) -> list[np.ndarray]:
    """All arrays of a round."""
    report = outcome.report
    parts = [*report[:3], *(report.detail or ()), *(outcome.sent or ()), outcome.clipped]
    return [part for part in parts if part is not None]


def test_an_actor_that_is_killed_changes_no_bit(ray_engine: "RayEngine") -> None:
    """kill -9 of token actors and of the hub while rounds are in flight, at moments spread over the run."""
    import ray

    experiment = EXPERIMENT.with_values({"task.prompts": 400, "run.rounds": 12, "run.trace": "none"})
    ray_engine.tokens_per_actor = 4
    expected = simulate(experiment, engine=LocalEngine())
    simulate(experiment, engine=ray_engine)
    actors = [*ray_engine.actors[:8], ray_engine.hub]
    pids = ray.get([actor.__ray_call__.remote(lambda self: os.getpid()) for actor in actors])
    victims = [pids[0], pids[5], pids[-1]]
    timers = [
        threading.Timer(delay, os.kill, (pid, signal.SIGKILL))
        for delay, pid in zip((0.02, 0.15, 0.3), victims, strict=True)
    ]
    for timer in timers:
        timer.start()
    result = simulate(experiment, engine=ray_engine)
    for timer in timers:
        timer.join()
    again = simulate(experiment, engine=ray_engine)
    np.testing.assert_array_equal(result.prompt_risk, expected.prompt_risk)
    np.testing.assert_array_equal(again.prompt_risk, expected.prompt_risk)
    survivors = ray.get([actor.__ray_call__.remote(lambda self: os.getpid()) for actor in actors])
    assert {pids[0], pids[5], pids[-1]}.isdisjoint(survivors), "the victims were really replaced"


def _unlucky(at_start: bool) -> type:
    """An actor whose process comes up late, or never."""

    class Unlucky:
        def __init__(self) -> None:
            if at_start:
                raise OSError("no such device")

        def fingerprint(self) -> str:
            time.sleep(60)
            return ""

    return Unlucky


@pytest.mark.parametrize("at_start", [True, False])
def test_actors_that_do_not_come_up_end_the_run_with_advice(
    at_start: bool, ray_engine: "RayEngine", monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.engines import ray as module

    monkeypatch.setattr(module, "TokenActor", _unlucky(at_start))
    if not at_start:
        monkeypatch.setattr(module, "_STALLED", 1)
    before, ray_engine.tokens_per_actor = list(ray_engine.actors), 1
    more = EXPERIMENT.with_values({"task.tokens": len(before) + 3, "task.prompts": 1})
    with pytest.raises(RunError, match="no such device" if at_start else r"run\.tokens_per_actor = "):
        simulate(more, engine=ray_engine)
    assert ray_engine.actors == before
    monkeypatch.undo()
    np.testing.assert_array_equal(
        simulate(more, engine=ray_engine).prompt_risk, simulate(more, engine=LocalEngine()).prompt_risk
    )


def test_a_failure_of_a_token_is_reported_as_in_process(ray_engine: "RayEngine") -> None:
    """A value that is not finite, met by the token that would send it."""
    ray_engine.tokens_per_actor = 8
    weights = random_transformer(7, 1, 3)
    broken, words = replace(weights, readout=weights.readout * 1e308), []
    for engine in (LocalEngine(), ray_engine):
        with pytest.raises(RunError, match="not finite") as caught, np.errstate(all="ignore"):
            simulate(EXPERIMENT.with_values({"policy.kind": "learned"}), engine=engine, learned=broken)
        words.append(str(caught.value))
    assert words[0] == words[1]
