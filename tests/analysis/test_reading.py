"""Runs in pandas: some of a table, several runs, graphs, arrays, other readers of the files, older runs."""

import json
from pathlib import Path

import duckdb
import networkx as nx
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

from agents.prior import draw_latent
from agents.task import draw_tokens
from analysis import Run, open_run, open_runs
from analysis.errors import UnreadableError
from analysis.traces import tables
from analysis.traces.schema import digest_of
from runner.built import build
from runner.config.experiment import Experiment
from runner.simulation.simulate import simulate

FULL = Experiment().with_values(
    {"task.tokens": 6, "task.prompts": 20, "run.rounds": 2, "run.batch": 8, "run.trace": "full",
     "graph.kind": "ring", "graph.degree": 2, "channel.noise": 0.5}
)  # fmt: skip
OLD = Path(__file__).parents[1] / "golden" / "schema-2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(simulate(FULL, out=tmp_path_factory.mktemp("runs")).folder or "")


@pytest.mark.parametrize("table", ["messages", "workspaces"])
@pytest.mark.parametrize(
    "wanted",
    [{"rounds": [2]}, {"positions": [0, 5]}, {"prompts": [7, 8, 19]}, {"rounds": [1], "prompts": [3]},
     {"rounds": [9]}, {"positions": [1], "columns": ["prompt", "round"]}],
    ids=str,
)  # fmt: skip
def test_some_of_a_table_is_what_a_mask_leaves_of_all_of_it(
    table: str, wanted: dict[str, list[int]], run: Run
) -> None:
    expected, place = getattr(run, table), {"messages": "sender", "workspaces": "position"}[table]
    for kind, column in (("rounds", "round"), ("positions", place), ("prompts", "prompt")):
        if kind in wanted:
            expected = expected[expected[column].isin(wanted[kind])]
    expected = expected[wanted.get("columns", list(expected))].reset_index(drop=True)
    pd.testing.assert_frame_equal(run.table(table, **wanted), expected)  # type: ignore[arg-type]


def test_a_filter_reads_its_files_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    content = tables._content

    def noted(path: Path, *rest: object) -> object:
        read.append(path.name)
        return content(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "_content", noted)
    run.table("messages", rounds=[2], prompts=[9])
    assert read == ["batch-00001-round-002.parquet"]


def test_row_groups_are_small_enough_to_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.storage.files._GROUP", 32)
    folder = simulate(FULL.with_values({"run.batch": 20}), out=tmp_path).folder
    metadata = pq.read_metadata(folder / "messages" / "batch-00000-round-001.parquet")
    senders = [metadata.row_group(index).column(1).statistics for index in range(metadata.num_row_groups)]
    assert len(senders) == 4 and senders[0].max < 5, "sorted by sender, with least and greatest"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mesages", {}),
        ("messages", {"columns": ["vale"]}),
        ("rounds", {"prompts": [1]}),
        ("atoms", {"rounds": [1]}),
    ],
)
def test_what_a_run_has_not_is_refused_by_name(name: str, wanted: dict[str, list[int]], run: Run) -> None:
    with pytest.raises(ValueError, match=r"no table|has (no column|round|atom)"):
        run.table(name, **wanted)  # type: ignore[arg-type]


def test_the_graph_has_the_names_and_edges_of_the_one_handed_in(tmp_path: Path) -> None:
    given = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")])
    given.nodes["a"]["club"] = 3
    folder = simulate(FULL.with_values({"task.tokens": 3}), graph=given, out=tmp_path).folder
    found = open_run(folder or "").graph
    assert set(found.edges) == set(given.edges)
    assert found.nodes["a"] == {"position": 0, "club": 3}
    whole = simulate(FULL.with_values({"graph.kind": "complete"}), out=tmp_path).folder
    assert open_run(whole or "").graph.number_of_edges() == 30


def test_arrays_hold_what_the_frame_holds(run: Run) -> None:
    arrays = run.to_xarray()
    assert dict(arrays.sizes) == {
        "round": 3,
        "position": 6,
        "prompt": 20,
        "component": 7,
        "level": 3,
        "atom": 8,
    }
    row = run.workspaces.query("round == 2 and position == 4 and prompt == 11").iloc[0]
    here = arrays.sel(round=2, position=4, prompt=11)
    assert float(here["error"]) == row["error"]
    assert here["estimate"].to_numpy().tolist() == [row[f"estimate_{index}"] for index in range(1, 8)]
    assert here["belief"].to_numpy().tolist() == [row[f"belief_{index}"] for index in range(8)]


def test_other_readers_see_the_same_numbers(run: Run) -> None:
    pattern = f"{run.folder}/messages/*.parquet"
    expected = run.messages.groupby("round")["value"].mean().tolist()
    ducks = duckdb.sql(f"select avg(value) from '{pattern}' group by round order by round").fetchall()
    bears = polars.read_parquet(pattern).group_by("round").agg(polars.col("value").mean()).sort("round")
    np.testing.assert_allclose([value for (value,) in ducks], expected, rtol=1e-12)
    np.testing.assert_allclose(bears["value"].to_list(), expected, rtol=1e-12)
    assert run.dataset("messages").count_rows() == len(run.messages)


def test_beliefs_claims_and_entropies_fit_each_other(run: Run) -> None:
    frame, atoms = run.workspaces, run.atoms
    belief = frame[[f"belief_{index}" for index in range(8)]].to_numpy(float)
    np.testing.assert_allclose(belief.sum(axis=1), 1.0, rtol=1e-6)
    vectors = atoms[[f"vector_{index}" for index in range(1, 8)]].to_numpy()
    estimate = frame[[f"estimate_{index}" for index in range(1, 8)]].to_numpy(float)
    np.testing.assert_allclose(belief @ vectors, estimate, atol=1e-6)
    spread = ((vectors[None] - estimate[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose((belief * spread).sum(axis=1), frame["claimed"], atol=1e-6)
    halves = belief @ (atoms["branch_1"].to_numpy()[:, None] == [0, 1])
    entropy = -(halves * np.log2(np.maximum(halves, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(entropy, frame["entropy_1"], atol=1e-5)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_the_exact_posterior_is_that_of_all_examples(jitter: float, tmp_path: Path) -> None:
    """By Bayes' rule on the joint Gaussian law of the labels, for one prompt after the other."""
    experiment = FULL.with_values({"prior.jitter": jitter, "task.label_noise": 0.4})
    truths = open_run(simulate(experiment, out=tmp_path).folder or "").truths
    built = build(experiment)
    latent = draw_latent(built.prior, 0, range(20))
    assert truths["atom"].tolist() == latent.atom.tolist()
    tokens = draw_tokens(latent, 0.4, 0, range(20), np.arange(6))
    for prompt in (0, 13):
        x, y = tokens.inputs[:, :, prompt], tokens.labels[:, prompt]
        law = 0.16 * np.eye(6) + x @ built.prior.factor @ built.prior.factor.T @ x.T
        rest = y - built.prior.atoms @ x.T
        weights = np.exp(-0.5 * np.einsum("an,nm,am->a", rest, np.linalg.inv(law), rest))
        found = truths.loc[prompt, [f"exact_{index}" for index in range(8)]].to_numpy(float)
        np.testing.assert_allclose(found, weights / weights.sum(), atol=1e-6)


def test_an_older_run_opens_with_the_same_columns(run: Run) -> None:
    """Of the second schema: lists in cells, no beliefs."""
    old = open_run(OLD)
    assert old.manifest["schema"] == 2
    assert [*old.workspaces] == [
        name for name in run.workspaces if name != "claimed" and not name.startswith("belief")
    ]
    np.testing.assert_allclose(old.workspaces.groupby("round")["error"].mean(), old.rounds["risk"])
    assert len(old.table("workspaces", rounds=[2], positions=[1])) == 6
    assert old.graph.number_of_edges() == 8
    with pytest.raises(FileNotFoundError, match="schema is older"):
        _ = old.truths


def test_runs_are_stacked_with_what_differs(tmp_path: Path) -> None:
    for noise, rounds in ((0.5, 2), (1.0, 2), (1.0, 3)):
        simulate(FULL.with_values({"channel.noise": noise, "run.rounds": rounds}), out=tmp_path)
    runs = open_runs(tmp_path)
    assert len(runs) == 3 and set(runs.parameters) == {"run", "channel.noise", "run.rounds"}
    stacked = runs.rounds
    assert stacked.groupby(["channel.noise", "run.rounds"])["risk"].count().to_dict() == {
        (0.5, 2): 3, (1.0, 2): 3, (1.0, 3): 4,
    }  # fmt: skip
    assert len(runs.table("messages", rounds=[3])) == 120
    assert repr(runs) == "Runs(3 runs, which differ in channel.noise, run.rounds)"
    assert len(open_runs(f"{tmp_path}/run-*")) == 3
    with pytest.raises(FileNotFoundError, match="no runs"):
        open_runs(tmp_path / "none")


def test_a_run_says_what_it_is_in_one_line(run: Run) -> None:
    assert repr(run).endswith("adaptive on ring, 6 tokens, 2 rounds, 20 prompts, complete, trace full)")


@pytest.mark.parametrize(
    "change",
    [{"sizes": None}, {"sizes": {"dim": -1, "levels": 3, "beliefs": 8}}, {"batch": 0}, {"prompts": "all"}],
)
def test_a_manifest_that_states_no_sizes_is_refused(
    change: dict[str, object], run: Run, tmp_path: Path
) -> None:
    content = {**run.manifest, **change}
    content["digest"] = digest_of(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UnreadableError, match="damaged"):
        open_run(tmp_path)
