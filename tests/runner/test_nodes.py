"""A run says who stands at which position: names and attributes of a graph's nodes, whatever they are."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import Run, open_run
from analysis.errors import UnreadableError
from analysis.plots.graph import graph_figure
from analysis.traces.schema import digest_of
from runner import Experiment, build, resume, simulate
from runner.errors import UsageError
from runner.storage.files import write_figure
from tests.commands import run as run_command
from topology.io import relabelled
from topology.mixing import uniform

SMALL = Experiment().with_values(
    {"task.prompts": 6, "run.rounds": 2, "run.trace": "full", "channel.bits": 12, "policy.belief": "joint"}
)
TRIANGLE = [(0, 1), (1, 2), (2, 0), (2, "a")]
STRANGE = [1, "1", (0, "x"), "<script>alert(1)</script>", "n" * 3000, "żółw 亀", "a\nb", "\ud800", "$\\frac$"]


def played(graph: "nx.Graph[Any]", out: Path, **values: object) -> Run:
    experiment = SMALL.with_values({"task.tokens": len(graph), **values})
    return open_run(simulate(experiment, graph=graph, out=out).folder or "")


def digests(run: Run) -> dict[str, Any]:
    return {name: digest for name, digest in run.manifest["tables"].items() if name != "timing"}


def orders(edges: list[tuple[Any, Any]]) -> Iterator["nx.Graph[Any]"]:
    for some in list(permutations(edges))[::5]:
        yield nx.Graph([(b, a) for a, b in some])


def test_a_run_says_who_each_position_is(tmp_path: Path) -> None:
    run = played(nx.Graph(TRIANGLE), tmp_path)
    assert run.nodes.to_dict("list") == {"position": [0, 1, 2, 3], "name": ["0", "1", "2", "a"]}


@pytest.mark.parametrize("edges", [TRIANGLE, [(1, "1"), ("1", "01"), (1.5, "1.5"), (1.5, 1)]])
def test_the_order_in_which_nodes_were_added_changes_no_bit_of_any_table(
    edges: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    first, *others = (digests(played(graph, tmp_path)) for graph in orders(edges))
    assert "nodes" in first
    assert all(other == first for other in others)


@pytest.mark.parametrize("trace", ["rounds", "sampled", "full"])
def test_every_name_is_text_and_stays_apart_from_all_others(trace: str, tmp_path: Path) -> None:
    graph = nx.cycle_graph(len(STRANGE))
    nx.relabel_nodes(graph, dict(enumerate(STRANGE)), copy=False)
    names = played(graph, tmp_path, **{"run.trace": trace}).nodes["name"]
    assert names.is_unique and len(names) == len(STRANGE)
    assert {"1", "'1'"} < set(names), "a number and a word that are written alike"
    assert any("<script>alert(1)</script>" in name for name in names)
    assert any("żółw 亀" in name for name in names)
    assert max(map(len, names)) >= 3000


def test_a_name_is_told_as_it_is_where_no_other_is_written_alike(tmp_path: Path) -> None:
    graph = nx.relabel_nodes(nx.path_graph(3), {0: ("a", 1), 1: "żółw 亀", 2: 7})
    assert played(graph, tmp_path).nodes["name"].tolist() == ["7", "('a', 1)", "żółw 亀"]


def test_nodes_that_cannot_be_told_apart_are_refused_before_anything_is_stored(tmp_path: Path) -> None:
    class Person:
        def __repr__(self) -> str:
            return "Ann"

    with pytest.raises(UsageError, match="both called Ann"):
        simulate(SMALL.with_values({"task.tokens": 2}), graph=nx.Graph([(Person(), Person())]), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


_OF_SETS = """
import networkx as nx
from topology.nodes import nodes_of
graph = nx.Graph([(frozenset({"bee", "ant", "cow"}), frozenset({"dog"})), (("a", frozenset({"x", "y"})), 3)])
print(nodes_of(graph).names)
"""


def test_sets_as_names_are_written_alike_in_every_process() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", _OF_SETS],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in "12345"
    }  # fmt: skip
    assert len(said) == 1
    with pytest.raises(UsageError, match="without a name"):
        build(SMALL.with_values({"task.tokens": 2}), nx.Graph([(object(), object())]))


def test_attributes_that_are_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    graph = nx.path_graph(["a", "b", "c"])
    graph.nodes["a"].update(club="chess", age=2**62 + 1, weight=0.5, member=True, photo=b"", name="Ann")
    graph.nodes["b"].update(club=3, age=np.int64(4), friends=["a"], member=np.bool_(False), huge=2**70)
    nodes = played(graph, tmp_path).nodes
    assert nodes["club"].tolist()[:2] == ["chess", 3]
    assert nodes["age"].tolist()[:2] == [2**62 + 1, 4], "no digit is lost where another node has none"
    assert nodes["weight"].tolist()[:1] == [0.5]
    assert nodes["member"].tolist()[:2] == [True, False]
    assert nodes["name"].tolist() == ["a", "b", "c"] and nodes["name_"].tolist()[:1] == ["Ann"]
    assert nodes.drop(columns=["position", "name"]).iloc[2].isna().all()
    assert not {"photo", "friends", "huge"} & set(nodes)


def test_messages_and_workspaces_tell_names_on_request(tmp_path: Path) -> None:
    run = played(nx.Graph(TRIANGLE), tmp_path)
    names = run.nodes["name"].to_numpy()
    messages, workspaces = run.named(run.messages), run.named(run.workspaces)
    assert messages["sender_name"].tolist() == names[run.messages["sender"]].tolist()
    assert workspaces["position_name"].tolist() == names[run.workspaces["position"]].tolist()
    pd.testing.assert_frame_equal(messages.drop(columns="sender_name"), run.messages)
    links = run.named(pq.read_table(run.folder / "graph.parquet").to_pandas())
    assert set(links.loc[links["sender_name"] == "a", "receiver_name"]) == {"a", "2"}
    with pytest.raises(ValueError, match="sender, receiver, position"):
        run.named(run.rounds)
    with pytest.raises(ValueError, match="0 to 3"):
        run.named(pd.DataFrame({"sender": [4]}))
    with pytest.raises(ValueError, match="positions are integers"):
        run.named(pd.DataFrame({"sender": [0.5]}))
    with pytest.raises(ValueError, match="already"):
        run.named(messages)


@pytest.mark.parametrize("kind", ["complete", "ring"])
def test_positions_are_the_names_in_a_graph_of_a_family(kind: str, tmp_path: Path) -> None:
    experiment = SMALL.with_values({"task.tokens": 6, "graph.kind": kind, "graph.degree": 2})
    run = open_run(simulate(experiment, out=tmp_path).folder or "")
    assert run.nodes.to_dict("list") == {"position": [*range(6)], "name": [*map(str, range(6))]}
    assert run.named(run.messages)["sender_name"].astype(int).equals(run.messages["sender"].astype(int))
    assert not (run.folder / "nodes.parquet").exists()


def test_names_and_attributes_of_a_file_are_those_of_the_run(tmp_path: Path) -> None:
    graph = nx.DiGraph([("Ann", "Bob"), ("Bob", "Cem")])
    graph.nodes["Bob"]["age"] = 41
    nx.write_graphml(graph, tmp_path / "friends.graphml")
    experiment = SMALL.with_values(
        {"task.tokens": 3, "graph.kind": "file", "graph.path": str(tmp_path / "friends.graphml")}
    )
    nodes = open_run(simulate(experiment, out=tmp_path).folder or "").nodes
    assert nodes["name"].tolist() == ["Ann", "Bob", "Cem"]
    assert nodes["age"].tolist()[1] == 41


def test_a_variant_of_an_experiment_keeps_the_names_of_its_graph() -> None:
    built = build(SMALL.with_values({"task.tokens": 4}), nx.Graph(TRIANGLE))
    for values in ({"run.rounds": 1}, {"graph.mixing": "metropolis"}, {"run.rounds": 1, "run.seed": 3}):
        assert built.varied(values).varied(values).nodes == built.nodes


def test_a_run_on_named_nodes_resumes_to_the_same_tables_and_on_no_others(tmp_path: Path) -> None:
    graph = nx.Graph(TRIANGLE)
    experiment = SMALL.with_values({"task.tokens": 4, "run.batch": 2})

    def stop(prompts: range, round: int) -> None:
        if prompts.start == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, graph=graph, out=tmp_path / "stopped", on_round=stop)
    (folder,) = (tmp_path / "stopped").iterdir()
    assert open_run(folder).nodes["name"].tolist() == ["0", "1", "2", "a"]
    with pytest.raises(UsageError, match="names"):
        resume(folder, graph=nx.relabel_nodes(graph, {"a": "b"}))
    resumed = resume(folder, graph=graph)
    whole = simulate(experiment, graph=graph, out=tmp_path / "whole")
    assert digests(open_run(resumed.folder or "")) == digests(open_run(whole.folder or ""))


def test_a_run_without_tables_says_that_it_kept_no_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'run\.trace = "none"'):
        _ = played(nx.Graph(TRIANGLE), tmp_path, **{"run.trace": "none"}).nodes


def rewritten(run: Run, **keys: Any) -> Run:
    content = {**run.manifest, **keys}
    content = {key: value for key, value in content.items() if value is not None}
    (run.folder / "manifest.json").write_text(json.dumps({**content, "digest": digest_of(content)}))
    return open_run(run.folder)


def test_a_run_of_the_first_schema_opens_and_has_positions(tmp_path: Path) -> None:
    run = played(nx.Graph(TRIANGLE), tmp_path)
    (run.folder / "nodes.parquet").unlink()
    tables = {name: digest for name, digest in run.manifest["tables"].items() if name != "nodes"}
    old = rewritten(run, schema=1, nodes=None, tables=tables)
    assert old.nodes["name"].tolist() == ["0", "1", "2", "3"]
    pd.testing.assert_frame_equal(old.messages, run.messages)


@pytest.mark.parametrize(
    ("column", "values"),
    [("attributes", ["{}", "[1]", "{}", "{}"]), ("attributes", ["{}", "{", "{}", "{}"]),
     ("attributes", ["[" * 10**5] * 4), ("position", [0, 2, 1, 3]), ("name", ["a", "a", "b", "c"])],
)  # fmt: skip
def test_a_damaged_table_of_nodes_is_refused_by_name(column: str, values: list[Any], tmp_path: Path) -> None:
    run = played(nx.Graph(TRIANGLE), tmp_path)
    path = run.folder / "nodes.parquet"
    table = pq.read_table(path)
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    pq.write_table(table.set_column(index, field, pa.array(values, field.type)), path)
    with pytest.raises(UnreadableError, match=str(run.folder)):
        _ = rewritten(run, tables={}).nodes


def test_a_manifest_without_a_number_of_tokens_is_refused_by_name(tmp_path: Path) -> None:
    run = open_run(simulate(SMALL, out=tmp_path).folder or "")
    for tokens in (None, True, 10**12, "32"):
        experiment = {**run.manifest["experiment"], "task": {"tokens": tokens}}
        with pytest.raises(UnreadableError, match=r"task\.tokens"):
            _ = rewritten(run, experiment=experiment).nodes


def test_a_figure_of_a_small_graph_has_the_names_and_no_other_graph_has_any(tmp_path: Path) -> None:
    graph = nx.cycle_graph(len(STRANGE))
    nx.relabel_nodes(graph, dict(enumerate(STRANGE)), copy=False)
    names = build(SMALL.with_values({"task.tokens": len(STRANGE)}), graph).nodes.names  # type: ignore[union-attr]
    plain = relabelled(graph)
    figure = graph_figure(plain, uniform(plain), "strange names", names=names)
    write_figure(figure, tmp_path, "graph")
    ET.parse(tmp_path / "graph.svg")  # it is XML whatever the names are
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == len(STRANGE)
    assert {"1", "'1'"} < set(texts)
    assert max(map(len, texts)) < 30
    large = relabelled(nx.cycle_graph(300))
    assert not graph_figure(large, uniform(large), "", names=[str(k) for k in range(300)]).axes[0].texts


def test_check_draws_the_names_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")  # text stays text
    (tmp_path / "friends.edges").write_text("Ann Bob\nBob Cem\n")
    (tmp_path / "friends.toml").write_text(
        f'[task]\ntokens = 3\n[graph]\nkind = "file"\npath = "{tmp_path}/friends.edges"\n'
    )
    arguments = ["check", str(tmp_path / "friends.toml"), "--figure", "--json", "--out", str(tmp_path)]
    assert run_command(arguments, monkeypatch) == 0
    drawn = Path(json.loads(capfd.readouterr().out)["figure"]).with_suffix(".svg").read_text()
    assert all(f">{name}<" in drawn for name in ("Ann", "Bob", "Cem"))
