"""Silent and corrupted tokens: exactly what they change, against graphs without their edges."""

import itertools
import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from agents.policies.corrupted import Corrupted
from analysis import open_run
from analysis.measures.interventions import strongest_path
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.studies.intervene import edge_influence, intervene
from tests.commands import run as command

RING = Experiment().with_values(
    {"task.tokens": 7, "task.prompts": 30, "run.rounds": 3, "graph.kind": "ring", "graph.degree": 2,
     "channel.noise": 0.3, "policy.repeats": 0.0, "policy.order": "widest"}
)  # fmt: skip


def estimates(experiment: Experiment, graph: "nx.DiGraph[int] | None" = None) -> np.ndarray:
    """By the policy that plans for the experiment's own graph, on another one."""
    built = build(experiment)
    mixing = built.mixing if graph is None else build(experiment, graph).mixing
    outcomes = LocalEngine().play(built.system, mixing, range(experiment.task.prompts), detail=True)
    return np.stack([outcome.report.detail.estimate for outcome in outcomes])  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["static", "gossip", "flood", "gradient"])
def test_a_silent_token_is_one_whose_edges_are_cut(kind: str) -> None:
    """Of policies that ask the same whatever the graph is: estimates of all others, in every round."""
    experiment = RING.with_values({"policy.kind": kind, "policy.order": "auto", "policy.repeats": "auto"})
    cut = build(experiment).graph.copy()
    cut.remove_edges_from([(2, reader) for reader in list(cut.successors(2))])
    expected = ((estimates(experiment, cut) - estimates(experiment)) ** 2).sum(axis=2).mean(axis=2)
    found = intervene(experiment, [2])
    others = found[found["position"] != 2]
    there = [expected[row["round"], row["position"]] for row in others.to_dict("records")]
    np.testing.assert_allclose(others["moved"], there, atol=1e-9)
    assert others["moved"].max() > 0.01


def test_influence_spreads_by_one_step_in_each_round() -> None:
    found = intervene(RING.with_values({"graph.kind": "path"}), [0], "constant", 3.0)
    reached = found[found["moved"] > 0].groupby("round")["position"].max()
    assert reached.to_dict() == {1: 1, 2: 2, 3: 3}


def test_a_message_that_is_flipped_twice_is_itself() -> None:
    found = intervene(RING, [1, 4], "flipped", -1.0)
    assert (found["moved"] == 0).all() and (found["value"] == 0).all()


def test_differences_are_paired_by_prompt() -> None:
    found = intervene(RING, [3], "random", 5.0)
    row = found.query("round == 3 and position == 4").iloc[0]
    corrupted = Corrupted(build(RING).policy, np.array([3]), "random", 5.0)
    plain, other = simulate(RING), simulate(RING, policy=corrupted)
    assert row["risk"] == pytest.approx(plain.position_risk[3, 4])
    assert row["value"] == pytest.approx(other.position_risk[3, 4] - plain.position_risk[3, 4])
    assert row["value"] > 0 and 0 < row["se"] < row["value"] * 2


@pytest.mark.parametrize("kind", ["silent", "constant", "flipped", "random", "adversarial"])
def test_blocks_change_no_bit(kind: str) -> None:
    one, other = (intervene(RING, [0, 5], kind, 2.0, engine=LocalEngine(block=block)) for block in (2, 7))  # type: ignore[arg-type]
    assert one.equals(other)


def test_a_constant_is_what_is_on_the_wire(tmp_path: Path) -> None:
    noiseless = RING.with_values({"channel.noise": 0.0, "run.trace": "full", "channel.clip": 8.0})
    policy = Corrupted(build(noiseless).policy, np.array([6]), "constant", 2.5, rounds=(2,))
    messages = open_run(simulate(noiseless, policy=policy, out=tmp_path).folder or "").messages
    mine = messages[messages["sender"] == 6]
    said = mine[mine["round"] == 2]["value"]
    assert np.abs(said - 2.5).max() < 1e-5
    assert np.abs(mine[mine["round"] == 1]["value"] - 2.5).min() > 1e-4, "in the rounds that are named"
    silent = Corrupted(build(noiseless).policy, np.array([6]), "silent")
    quiet = open_run(simulate(noiseless, policy=silent, out=tmp_path / "q").folder or "").messages
    assert 6 not in set(quiet["sender"])


@pytest.mark.parametrize(
    ("given", "words"),
    [({"tokens": [7]}, "0 to 6"), ({"tokens": []}, "one or more"), ({"tokens": range(7)}, "nothing is heard"),
     ({"tokens": [0], "kind": "loud"}, "silent"), ({"tokens": [0], "rounds": [4]}, "1 to 3"),
     ({"tokens": [-1]}, "from 0"), ({"tokens": [0], "size": float("nan")}, "finite")],
)  # fmt: skip
def test_what_is_not_possible_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        intervene(RING, **given)  # type: ignore[arg-type]


def test_the_command_plays_a_stored_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(simulate(RING, out=tmp_path).folder)
    assert command(["intervene", folder, "--tokens", "2,3", "--kind", "flipped", "--json"], monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)["interventions"]
    expected = intervene(RING, [2, 3], "flipped")
    assert [row["value"] for row in rows] == pytest.approx(expected["value"].tolist())
    assert command(["intervene", folder, "--tokens", "2"], monkeypatch) == 0
    assert "who moved most" in capsys.readouterr().out
    for wrong in (["--tokens", "x"], ["--tokens", "70"], ["--tokens", "1", "--kind", "loud"]):
        assert command(["intervene", folder, *wrong], monkeypatch) == 2


def test_a_command_alters_edges_workspaces_and_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(simulate(RING, out=tmp_path).folder)

    def rows(*options: str) -> list[float]:
        assert command(["intervene", folder, *options, "--json"], monkeypatch) == 0
        return [row["moved"] for row in json.loads(capsys.readouterr().out)["interventions"]]

    assert rows("--edges", "1-2,3-2", "--rounds", "2") == pytest.approx(
        intervene(RING, edges=[(1, 2), (3, 2)], rounds=[2])["moved"].tolist()
    )
    assert rows("--tokens", "3", "--kind", "patched", "--rounds", "1") == pytest.approx(
        intervene(RING, [3], "patched", rounds=[1])["moved"].tolist()
    )
    narrowed = intervene(RING, bits={2: 3}, trim=0.4)["moved"].tolist()
    assert rows("--bits", "2:3", "--trim", "0.4") == pytest.approx(narrowed)
    assert rows("--reader", "0") == pytest.approx(edge_influence(RING, 0)["moved"].tolist(), abs=1e-9)
    assert command(["intervene", folder, "--reader", "0"], monkeypatch) == 0
    assert "without which token 0" in capsys.readouterr().out
    for wrong in (["--edges", "1"], ["--edges", "1-5"], ["--bits", "x"], ["--bits", "9:3"], ["--trim", ".7"],
                  ["--reader", "7"], ["--reader", "1", "--trim", ".1"], [],
                  ["--edges", "0-1", "--tokens", "1"], ["--tokens", "1", "--kind", "patched"],
                  ["--edges", "0-1", "--kind", "random"]):  # fmt: skip
        assert command(["intervene", folder, *wrong], monkeypatch) == 2, wrong


def test_workspaces_of_all_tokens_and_prompts_are_those_of_the_next_prompt() -> None:
    """Without noise on the way, what a whole patched prompt says and believes next is what its donor does."""
    quiet = RING.with_values({"channel.noise": 0.0, "policy.control_variate": False})
    found = intervene(quiet, range(7), "patched", rounds=[2])
    assert (found[found["round"] < 2]["moved"] == 0).all()
    plain = estimates(quiet)[2]
    expected = ((np.roll(plain, -1, axis=-1) - plain) ** 2).sum(axis=1).mean(axis=1)
    np.testing.assert_allclose(found[found["round"] == 2]["moved"], expected)


def test_edges_without_which_a_reader_believes_something_else_lie_on_its_paths() -> None:
    found = edge_influence(RING.with_values({"graph.kind": "path", "run.rounds": 2}), 0)
    heard = found[found["moved"] > 0]
    assert set(zip(heard["round"], heard["sender"], heard["receiver"], strict=True)) >= {(1, 1, 0), (2, 1, 0)}
    assert found["moved"].is_monotonic_decreasing
    row = heard[heard["round"] == 1].iloc[0]
    edge = (int(row["sender"]), int(row["receiver"]))
    again = intervene(RING.with_values({"graph.kind": "path", "run.rounds": 2}), edges=[edge], rounds=[1])
    there = again[(again["round"] == 2) & (again["position"] == 0)]
    assert there["moved"].item() == pytest.approx(row["moved"])


def test_the_strongest_path_is_that_of_all_paths_whose_weakest_message_moved_most() -> None:
    """Against every path through the rounds, one by one; on a path graph there is one way, by every token."""
    influence = edge_influence(RING, 3)
    edges = influence[influence["sender"] != influence["receiver"]]
    messages = {
        (row["round"], row["sender"], row["receiver"]): row["moved"] for row in edges.to_dict("records")
    }
    for sender in range(7):
        widths = []
        for stops in itertools.product(range(7), repeat=3):
            if stops[-1] == 3:
                places = (sender, *stops)
                hops = [(t, places[t - 1], places[t]) for t in (1, 2, 3) if places[t - 1] != places[t]]
                if all(hop in messages for hop in hops):
                    widths.append(min((messages[hop] for hop in hops), default=0.0))
        found = strongest_path(influence, sender, 3)
        if sender != 3:
            assert (found["moved"].min() if len(found) else 0.0) == max(widths, default=0.0)
    line = edge_influence(RING.with_values({"graph.kind": "path"}), 3)
    assert strongest_path(line, 0, 3)[["round", "sender", "receiver"]].values.tolist() == [
        [1, 0, 1], [2, 1, 2], [3, 2, 3]
    ]  # fmt: skip
