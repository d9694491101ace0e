"""An experiment is built once, and what is registered or handed in is built like what is named."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from jaxtyping import Integer

import runner.parts
from agents.channel import Message
from agents.inference.gaussian import GaussianBelief
from agents.policies import POLICIES
from agents.policies.base import PolicyEntry
from agents.policies.bayesian import Bayesian, inference_of, numbers_of_a_belief, principal_codes
from agents.prior import PRIORS, gaussian, tree
from agents.task import TokenView
from runner.built import build
from runner.config.experiment import Experiment
from runner.config.registries import load_entry_points
from runner.engines.local import LocalEngine
from runner.errors import RunError, UsageError
from runner.prediction import forecast
from runner.simulation.resume import resume
from runner.simulation.simulate import simulate
from tests.commands import run
from topology.families import FAMILIES, Family, Graph

SMALL = Experiment().with_values({"task.prompts": 20, "task.tokens": 8, "run.rounds": 2})


@dataclass(frozen=True, eq=False)
class Rotating(Bayesian):
    """Asks one code after the other."""

    def choose(self, belief: GaussianBelief, round: int) -> Integer[np.ndarray, "n K B"]:
        tokens, _, prompts = belief.log_weights.shape
        return np.full((tokens, self.channels, prompts), (round - 1) % self.codes)


ROTATING = PolicyEntry(
    lambda given: Rotating(inference_of(given), given.channel.channels, given.options.control_variate),
    principal_codes,
    numbers=numbers_of_a_belief,
)


@pytest.fixture
def registered() -> Iterator[None]:
    """A policy, a prior and a graph family of another package; forgotten afterwards."""
    mine: list[tuple[dict[str, Any], str, Any]] = [
        (POLICIES, "rotating", ROTATING),
        (PRIORS, "narrow", PRIORS["gaussian"]),
        (FAMILIES, "ladder", ladder),
    ]
    for registry, name, entry in mine:
        registry[name] = entry
    yield
    for registry, name, _ in mine:
        del registry[name]


def ladder(family: Family) -> Graph:
    return nx.convert_node_labels_to_integers(nx.ladder_graph(family.tokens // 2)).to_directed()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a graph and its weights are made."""
    counts = {"graphs": 0, "weights": 0}
    ring, weigh = FAMILIES["ring"], runner.parts.weigh

    def counted_ring(family: Family) -> Graph:
        counts["graphs"] += 1
        return ring(family)

    def counted_weigh(graph: Graph, weights: str) -> Any:
        counts["weights"] += 1
        return weigh(graph, weights)

    monkeypatch.setitem(FAMILIES, "ring", counted_ring)
    monkeypatch.setattr(runner.parts, "weigh", counted_weigh)
    return counts


@pytest.mark.parametrize("command", ["check", "run", "theory", "compare"])
def test_a_command_makes_its_graph_once(
    command: str, made: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ["graph.kind=ring", "task.tokens=8", "task.prompts=10", "run.rounds=1", "run.engine=local"]
    if command == "compare":
        keys += [
            "compare.transformers=[]",
            'compare.policies=["adaptive","gossip"]',
            "compare.theory_samples=50",
        ]
    settings = [word for key in keys for word in ("--set", key)]
    more = ["--precision", "50"] if command == "theory" else []
    assert run([command, "demo", *settings, *more], monkeypatch) == 0
    assert made == {"graphs": 1, "weights": 1}


def test_what_two_experiments_share_is_made_once(made: dict[str, int]) -> None:
    base = build(SMALL.with_values({"graph.kind": "ring"}))
    other = base.varied({"policy.kind": "static", "run.rounds": 1})
    assert other.prior is base.prior and other.mixing is base.mixing and other.graph is base.graph
    assert base.varied({"graph.degree": 2}).mixing is not base.mixing
    assert base.varied({"run.seed": 1}).prior is not base.prior
    assert made == {"graphs": 2, "weights": 2}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "values",
    [{"policy.kind": "rotating"}, {"prior.kind": "narrow", "prior.dim": 3}, {"graph.kind": "ladder"}],
)
def test_what_is_registered_can_be_named(values: dict[str, object]) -> None:
    risk = simulate(SMALL.with_values(values)).risk
    assert risk[2] < risk[0]


def test_what_is_not_registered_is_refused_with_what_is() -> None:
    with pytest.raises(
        UsageError, match=r'policy\.kind = \'rotating\' .* "adaptive" \| "static" \| "gossip"'
    ):
        SMALL.with_values({"policy.kind": "rotating"})


def test_a_prior_and_a_policy_may_be_handed_in() -> None:
    prior = tree(2, 2, 0.5, 7, seed=4)
    built = build(SMALL)
    policy = Rotating(built.policy.inference, 1, True)  # type: ignore[attr-defined]
    assert (simulate(SMALL, prior=prior).risk != simulate(SMALL).risk).any()
    assert (simulate(SMALL, policy=built.policy).risk == simulate(SMALL).risk).all()
    assert build(SMALL, policy=policy).scenario.theory is None
    with pytest.raises(UsageError, match=r"prior\.dim = 7 is not possible; possible: 3"):
        build(SMALL, prior=gaussian(3))
    given = build(SMALL.with_values({"policy.kind": "static"}), prior=prior)
    assert given.varied({"run.rounds": 1}).prior is prior
    assert build(SMALL, like=given).prior is not prior
    assert forecast(given, 100).curve("theory") is not None
    with pytest.raises(UsageError, match="prior"):
        given.varied({"prior.decay": 0.5})
    with pytest.raises(UsageError, match="policy"):
        build(SMALL, policy=policy).varied({"run.rounds": 1})


def test_a_run_with_a_prior_that_was_handed_in_is_resumed_with_it_alone(tmp_path: Path) -> None:
    prior = tree(2, 2, 0.5, 7, seed=4)
    batches = SMALL.with_values({"run.batch": 5})

    def stop(prompts: range, round: int) -> None:
        if prompts.start == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(batches, out=tmp_path, prior=prior, on_round=stop)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UsageError, match=r"the prior that the run began with .* prior=\.\.\."):
        resume(folder)
    assert (resume(folder, prior=prior).risk == simulate(batches, prior=prior).risk).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [("adding:nothing", "can be loaded"), ("json:loads", None)],
)
def test_another_distribution_registers_by_entry_point(value: str, words: str | None, tmp_path: Path) -> None:
    """In a process of its own, with a distribution that is nothing but its entry point."""
    information = tmp_path / "site" / "adding-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: adding\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[tokenfield.families]\nfigure_eight = {value}\n")
    program = (
        "from runner.config.registries import load_entry_points; from topology.families import FAMILIES\n"
        "load_entry_points(); print(FAMILIES['figure_eight'].__name__)"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path / 'site')!r})\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if words is None:
        assert done.stdout.strip() == "loads", done.stderr
    else:
        assert "UsageError: entry point tokenfield.families" in done.stderr and words in done.stderr


def test_entry_points_are_loaded_once() -> None:
    before = {name: dict(registry) for name, registry in (("policies", POLICIES), ("priors", PRIORS))}
    load_entry_points()
    assert before == {"policies": POLICIES, "priors": PRIORS}


def test_a_token_that_fails_is_reported_by_its_own_error() -> None:
    """And the same on Ray: see test_engines."""

    class Broken(Rotating):
        def choose(self, belief: GaussianBelief, round: int) -> Integer[np.ndarray, "n K B"]:
            raise FloatingPointError("a token of mine")

    policy = Broken(build(SMALL).policy.inference, 1, True)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="a token of mine"):
        simulate(SMALL, policy=policy, engine=LocalEngine())


@pytest.mark.parametrize("code", [-1, 7, 300])
def test_a_policy_that_names_a_code_that_does_not_exist_is_told(code: int) -> None:
    class Lost(Rotating):
        def choose(self, belief: GaussianBelief, round: int) -> Integer[np.ndarray, "n K B"]:
            return np.full_like(super().choose(belief, round), code)

    policy = Lost(build(SMALL).policy.inference, 1, True)  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="codes are to be from 0 to 6"):
        simulate(SMALL, policy=policy, engine=LocalEngine())


@pytest.mark.parametrize(
    "message",
    [
        lambda shape: Message(np.full(shape, 9), np.zeros(shape)),
        lambda shape: Message(np.full(shape, -1), np.zeros(shape)),
        lambda shape: Message(np.zeros(shape), np.zeros(shape)),
        lambda shape: Message(np.zeros(shape, int), np.zeros((*shape[:2], shape[2] + 1))),
        lambda shape: Message(np.zeros((1, 1, 1), int), np.zeros((1, 1, 1))),
        lambda shape: Message(np.zeros(shape, int), np.zeros(shape), np.ones(shape)),
    ],
)
def test_what_is_no_message_is_refused(message: Callable[[tuple[int, ...]], Message]) -> None:
    policy = build(SMALL).policy

    class Silent:
        codes = policy.codes

        def __getattr__(self, name: str) -> Any:
            return getattr(policy, name)

        def emit(self, state: Any, tokens: TokenView, round: int) -> Message:
            return message((tokens.inputs.shape[0], 1, tokens.inputs.shape[2]))

    system = replace(build(SMALL).system, policy=Silent())
    with pytest.raises(ValueError, match="a policy emitted"):
        list(LocalEngine().play(system, build(SMALL).mixing, range(4)))


def test_a_graph_that_was_handed_in_stays_when_keys_change() -> None:
    ring = nx.cycle_graph(8)
    built = build(SMALL, ring)
    assert built.varied({"run.rounds": 1}).mixing is built.mixing
    other = built.varied({"graph.mixing": "metropolis"})
    assert not other.mixing.is_shared and other.mixing.digest() != built.mixing.digest()
    assert build(SMALL, nx.path_graph(8), like=built).mixing.digest() != built.mixing.digest()
    assert build(SMALL, like=built).mixing.is_shared
    with pytest.raises(UsageError, match=r"task\.tokens"):
        built.varied({"task.tokens": 9})


def test_theory_of_a_graph_that_was_handed_in_is_that_of_the_graph_named() -> None:
    given = forecast(build(SMALL, nx.cycle_graph(8)), 200)
    named = forecast(SMALL.with_values({"graph.kind": "ring", "graph.degree": 2}), 200)
    assert given.curve("infinite N") is None and given.facts["allocation"] is None
    np.testing.assert_allclose(given.curves["risk"], named.curves["risk"], rtol=1e-12)


@pytest.mark.parametrize("key", ["graph", "prior", "policy"])
def test_what_is_built_takes_nothing_else(key: str) -> None:
    given: dict[str, Any] = {
        "graph": nx.cycle_graph(8),
        "prior": gaussian(7),
        "policy": build(SMALL).policy,
    }
    with pytest.raises(UsageError, match=f"{key} = .* hand it to build"):
        simulate(build(SMALL), **{key: given[key]})


@pytest.mark.usefixtures("registered")
def test_an_entry_that_makes_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "ladder", lambda family: nx.path_graph(3).to_directed())
    with pytest.raises(
        UsageError, match=r"task\.tokens = 8 .* 3, the number of nodes in a graph of the family"
    ):
        build(SMALL.with_values({"graph.kind": "ladder"}))
    three = replace(PRIORS["narrow"], build=lambda options: gaussian(3))
    monkeypatch.setitem(PRIORS, "narrow", three)
    with pytest.raises(UsageError, match=r"prior\.dim = 7 .* 3, that of the prior narrow"):
        build(SMALL.with_values({"prior.kind": "narrow"}))


@pytest.mark.parametrize(
    "command, settings, words",
    [
        ("run", ["run.rounds=0", "policy.kind=learned"], "run.rounds = 0"),
        ("train", ["run.rounds=0"], "run.rounds = 0"),
        ("compare", ["compare.policies=[]", "compare.transformers=[]"], "compare.policies"),
        ("theory", ["prior.decay=2"], None),
        ("theory", ["prior.branching=4", "prior.levels=2", "prior.dim=15"], None),
    ],
)
def test_settings_at_the_edge_are_told_or_run(
    command: str, settings: list[str], words: str | None, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    small = ["task.prompts=20", "task.tokens=8", "run.rounds=2", "run.engine=local", *settings]
    more = ["--precision", "50"] if command == "theory" else []
    code = run([command, "demo", *(w for key in small for w in ("--set", key)), *more], monkeypatch)
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert (code, words is None or words in error) == (0 if words is None else 2, True)
