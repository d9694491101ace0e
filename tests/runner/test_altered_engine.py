"""Messages that are altered on the way: against other graphs and policies, and scipy's trimmed mean."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.stats import trim_mean

from agents.channel import Message
from agents.policies.corrupted import Corrupted
from agents.task import TokenView
from analysis import open_run
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.altered import AlteredEngine
from runner.engines.base import Engine, Outcome, rows_of
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.simulation.resume import resume
from runner.simulation.simulate import simulate
from runner.studies.prompt import trace_of

BASE = {"task.tokens": 9, "task.prompts": 12, "run.rounds": 3, "channel.noise": 0.2}


def made(**values: Any) -> Experiment:
    return Experiment().with_values(
        {**BASE, **{key.replace("__", "."): value for key, value in values.items()}}
    )


def outcomes(experiment: Experiment, engine: Engine, policy: Any = None, mixing: Any = None) -> list[Outcome]:
    built = build(experiment)
    system = replace(built.system, policy=policy or built.policy)
    prompts = range(experiment.task.prompts)
    return list(engine.play(system, mixing or built.mixing, prompts, detail=True, messages=True))


def estimates(*given: Any, **more: Any) -> np.ndarray:
    return np.stack([one.report.detail.estimate for one in outcomes(*given, **more)])  # type: ignore[union-attr]


CASES = [
    made(), made(channel__channels=2), made(policy__kind="flood", graph__kind="ring", graph__degree=2),
    made(graph__kind="causal"), made(graph__kind="star", policy__kind="gossip", graph__mixing="metropolis"),
]  # fmt: skip


@pytest.mark.parametrize("experiment", CASES)
def test_without_alterations_every_bit_is_that_of_the_local_engine(experiment: Experiment) -> None:
    for one, other in zip(
        outcomes(experiment, AlteredEngine()), outcomes(experiment, LocalEngine()), strict=True
    ):
        assert one.round == other.round and one.scalars == other.scalars
        np.testing.assert_array_equal(one.report.error, other.report.error)
        np.testing.assert_array_equal(one.clipped, other.clipped)
        if one.sent is not None and other.sent is not None:
            np.testing.assert_array_equal(one.sent.wire, other.sent.wire)


@pytest.mark.parametrize("kind", ["static", "flood", "gossip"])
def test_a_silent_edge_is_one_that_the_graph_has_not(kind: str) -> None:
    experiment = made(policy__kind=kind, graph__kind="ring", graph__degree=2)
    cut: nx.DiGraph[int] = build(experiment).graph.copy()
    cut.remove_edges_from([(0, 1), (4, 3)])
    without = estimates(experiment, LocalEngine(), mixing=build(experiment, cut).mixing)
    np.testing.assert_array_equal(estimates(experiment, AlteredEngine(((0, 1), (4, 3)))), without)


def test_all_hear_the_same_but_the_one_whose_edge_is_silent() -> None:
    """On a complete graph, whose sums serve all, one round."""
    experiment = made(run__rounds=1)
    plain, cut = estimates(experiment, LocalEngine()), estimates(experiment, AlteredEngine(((2, 5),)))
    moved = (plain != cut).any(axis=(0, 2, 3))
    assert np.flatnonzero(moved).tolist() == [5]


@dataclass(frozen=True)
class Says:
    """A policy whose first token says in round 1 what it would say in a later prompt."""

    policy: Any
    donor: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def emit(self, state: Any, tokens: TokenView, round: int) -> Message:
        message = self.policy.emit(state, tokens, round)
        if round != 1:
            return message  # type: ignore[no-any-return]
        codes, values = message.codes.copy(), message.values.copy()
        codes[0], values[0] = (np.roll(part[0], -self.donor, axis=-1) for part in (codes, values))
        return Message(codes, values, message.spoken)


@pytest.mark.parametrize("donor", [1, 5])
def test_a_patched_message_is_that_of_another_prompt(donor: int) -> None:
    """On a path, whose first token is heard by one other: that one hears what a whole patched token says."""
    experiment = made(graph__kind="path", channel__noise=0.0, policy__control_variate=False)
    policy = build(experiment).policy
    patched = estimates(experiment, AlteredEngine(((0, 1),), rounds=(1,), donor=donor))
    said = estimates(experiment, LocalEngine(block=9), policy=Says(policy, donor))
    np.testing.assert_array_equal(patched[1, 1], said[1, 1])
    plain = estimates(experiment, LocalEngine())
    assert (patched[1, 1] != plain[1, 1]).any()
    np.testing.assert_array_equal(np.delete(patched[1], 1, axis=0), np.delete(plain[1], 1, axis=0))


@pytest.mark.parametrize("trim", [0.1, 0.25, 0.49])
@pytest.mark.parametrize("kind", ["complete", "ring"])
def test_a_trimmed_mean_is_scipys(kind: str, trim: float) -> None:
    """Flood with one code and one round: the estimate of a coordinate is made of the mean that was heard."""
    experiment = made(graph__kind=kind, run__rounds=1, channel__channels=1)
    built = build(experiment)
    heard = AlteredEngine(trim=trim)
    said = outcomes(experiment, LocalEngine())[1].sent
    assert said is not None
    aggregate = heard._heard(rows_of(built.mixing), said, built.policy.codes, 1)
    for receiver in range(len(aggregate.total)):
        senders = built.mixing.weights.indices[slice(*built.mixing.weights.indptr[receiver : receiver + 2])]
        for code in range(built.policy.codes):
            for prompt in range(12):
                mine = said.codes[senders, :, prompt] == code
                values = said.wire[senders, :, prompt][mine].astype(float)
                if not len(values):
                    assert aggregate.weight[receiver, code, prompt] == 0
                    continue
                mean = aggregate.total[receiver, code, prompt] / aggregate.weight[receiver, code, prompt]
                assert mean == pytest.approx(trim_mean(values, trim))


def test_a_trimmed_mean_costs_little_and_bounds_what_adversaries_do() -> None:
    experiment = made(task__tokens=40, task__prompts=200, channel__noise=0.0)
    policy = Corrupted(build(experiment).policy, np.arange(4), "adversarial", 8.0)

    def risk(engine: Engine, policy: Any = None) -> float:
        return float(outcomes(experiment, engine, policy)[-1].report.error[4:].mean())

    plain, attacked = risk(LocalEngine()), risk(LocalEngine(), policy)
    trimmed, defended = risk(AlteredEngine(trim=0.2)), risk(AlteredEngine(trim=0.2), policy)
    assert attacked > 3 * plain
    assert trimmed < 2 * plain + 0.01 and defended < attacked / 2


def test_bits_change_from_the_round_that_is_named() -> None:
    experiment = made()
    plain, narrowed = (outcomes(experiment, engine) for engine in (LocalEngine(), AlteredEngine(bits={2: 3})))
    for round in range(1, 4):
        one, other = plain[round].sent, narrowed[round].sent
        assert one is not None and other is not None
        assert (round == 1) == bool((one.wire == other.wire).all())
        assert other.wire.max() <= 7 or round == 1
    built = build(experiment)
    coarse = replace(built.system, channel=replace(built.channel, bits=3))
    throughout = list(LocalEngine().play(coarse, built.mixing, range(12), detail=True))
    named = estimates(experiment, AlteredEngine(bits={1: 3}))
    np.testing.assert_array_equal(named, np.stack([one.report.detail.estimate for one in throughout]))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("engine", "words"),
    [(AlteredEngine(((0, 3),)), "the graph has"), (AlteredEngine(((0, 40),)), "the graph has"),
     (AlteredEngine(((0, 1),), (7,)), "1 to 3"), (AlteredEngine(trim=0.5), "less than"),
     (AlteredEngine(((0, 1),), donor=24), "multiple"),
     (AlteredEngine(bits={0: 3}), "1 to 3"), (AlteredEngine(bits={1: 40}), "1 to 32")],
)  # fmt: skip
def test_what_is_not_possible_is_refused(engine: AlteredEngine, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        outcomes(made(graph__kind="ring", graph__degree=2), engine)
    with pytest.raises(UsageError, match="equal weights"):
        outcomes(made(graph__kind="star", graph__mixing="metropolis"), AlteredEngine(trim=0.1))


def test_a_run_that_was_altered_is_read_but_neither_resumed_nor_played_again(tmp_path: Path) -> None:
    experiment = made(run__batch=4, run__trace="sampled", trace__prompts=[0])

    def stop(prompts: range, round: int) -> None:
        if prompts.start == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, engine=AlteredEngine(trim=0.4), out=tmp_path, on_round=stop)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UsageError, match="altered on their way"):
        resume(folder)
    run = open_run(simulate(experiment, engine=AlteredEngine(trim=0.4), out=tmp_path / "whole").folder or "")
    assert run.needs_objects and run.rounds["risk"].notna().all()
    with pytest.raises(UsageError):
        trace_of(run, 7)
