"""Input that is broken, or made to break something: the right result or a clear error; nothing is lost."""

import bz2
import errno
import gzip
import json
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.policies.learned import Affine, Layer, Learned
from analysis.errors import UnreadableError
from analysis.traces.reader import Run, open_run
from analysis.traces.schema import digest_of, part_name
from runner.built import build
from runner.config.experiment import Experiment, load
from runner.config.studies import Comparison
from runner.errors import RunError, UsageError
from runner.simulation.simulate import Simulation, simulate
from runner.storage.arrays import read_arrays, write_arrays
from tests.commands import run
from topology.io import read_named, relabelled

SMALL = Experiment().with_values(
    {"task.tokens": 4, "task.prompts": 12, "run.rounds": 2, "run.trace": "full", "graph.kind": "ring",
     "graph.degree": 2}
)  # fmt: skip
LOCAL = ["--set", "run.engine=local", "--set", "task.prompts=5"]
PRESET = Path(__file__).parents[2] / "runner" / "config" / "presets" / "demo.toml"
TABLES = ("messages", "workspaces", "prompts", "rounds", "timing")


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Bytes that are lost, changed or put in between, anywhere."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "bit"]))
    place, content = draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(min_size=1, max_size=8))
    bit = draw(st.integers(0, 7))

    def damage(whole: bytes) -> bytes:
        at = int(place * len(whole))
        if kind == "cut":
            return whole[:at]
        if kind == "insert":
            return whole[:at] + content + whole[at:]
        new = bytes([whole[at] ^ 1 << bit]) if kind == "bit" else content
        return whole[:at] + new + whole[at + len(new) :]

    return damage


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Experiments

EXPERIMENTS = {
    "not UTF-8": (b"[task]\n# \xff\ntokens = 3\n", "utf-8"),
    "null byte": (b"[task]\n\0tokens = 3\n", "valid TOML"),
    "key twice": (b"[task]\ntokens = 3\ntokens = 4\n", "Cannot overwrite"),
    "table twice": (b"[task]\ntokens = 3\n[task]\nprompts = 4\n", "Cannot declare"),
    "deep lists": (b"x = " + b"[" * 4000, "nested deeper"),
    "deep lists, many lines": (b"x = " + b"[\n" * 20_000, "nested deeper"),
    "deep tables": (b"x = " + b"{a=" * 1300 + b"1" + b"}" * 100, "nested deeper"),
    "a key of a thousand parts": (b".".join([b"a"] * 1000) + b" = 1", "a = {"),
    "a long key": (b".".join([b"a"] * 9000) + b" = 1", "lines of up to 4,096"),
    "a hundred megabytes": (b"#" * 10**8, "more than 65,536 bytes"),
    "many keys": (b"".join(b"k%d = 1\n" % index for index in range(5000)), "... and 4,980 more"),
    "integer of 4,000 digits": (b"[task]\ntokens = " + b"9" * 4000, "task.tokens = 9999"),
    "integer of 4,000 hexadecimal digits": (b"[task]\ntokens = 0x" + b"f" * 4000, "of 16,000 bits"),
    "truth value": (b"[task]\ntokens = true\n", "task.tokens = True"),
    "truth value as a number": (b"[channel]\nclip = true\n", "channel.clip = True"),
    "not a number": (b"[channel]\nclip = nan\n", "channel.clip = nan"),
    "infinite": (b"[prior]\ndecay = -inf\n", "prior.decay = -inf"),
    "a date": (b"[channel]\nclip = 2020-01-01\n", "channel.clip = datetime.date"),
    "a key that a terminal obeys": (b'"a\\u001b[31m" = 1\n', "a\\x1b[31m"),
    "an empty key": (b'"" = 1\n', '"" = 1'),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_broken_experiment_is_refused_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, words = EXPERIMENTS[name]
    file = tmp_path / "experiment.toml"
    file.write_bytes(content)
    assert run(["check", str(file)], monkeypatch) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err
    assert "\x1b" not in err
    assert len(err) < 20_000
    assert all(line.startswith("tokenfield: ") for line in err.splitlines())


@pytest.mark.parametrize(
    "setting",
    [
        "a." * 5000 + "b=1",
        "policy.rounds_per_scale=" + "[" * 2000,
        "task.tokens=" + "9" * 4000,
        "task.tokens=3\nrun.rounds=9",
        "..=1",
    ],
    ids=lambda text: text[:20],
)
def test_a_broken_setting_is_refused(
    setting: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "demo", "--set", setting], monkeypatch) == 2
    err = capfd.readouterr().err
    assert err.startswith("tokenfield: ")
    assert len(err) < 2000


@pytest.mark.parametrize("name", ["x" * 5000, "/dev/zero", "."], ids=lambda text: text[:20])
def test_what_cannot_be_an_experiment_file_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", name], monkeypatch) == 2
    assert capfd.readouterr().err.startswith("tokenfield: ")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_bytes(b"\xef\xbb\xbf" + PRESET.read_bytes())
    assert load(Comparison, file) == load(Comparison, PRESET)


@settings(max_examples=80)
@given(damage=damages())
def test_a_damaged_experiment_is_an_experiment_or_refused(
    damage: Callable[[bytes], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.toml"
    file.write_bytes(damage(PRESET.read_bytes()))
    try:
        assert isinstance(load(Comparison, file), Comparison)
    except UsageError as failure:
        assert str(failure)


# Graphs

NODES = "".join(f'<node id="{index}"/>' for index in range(4))
EDGES = "".join(f'<edge source="{index}" target="{(index + 1) % 4}"/>' for index in range(4))
NAMESPACE = 'xmlns="http://graphml.graphdrawing.org/xmlns"'


def graphml(inner: str = NODES + EDGES, before: str = "", after: str = "") -> bytes:
    graph = f'<graph edgedefault="undirected">{inner}</graph>'
    return f'<?xml version="1.0"?>{before}<graphml {NAMESPACE}>{graph}{after}</graphml>'.encode()


def weighted(weight: str) -> bytes:
    key = '<key id="w" for="edge" attr.name="weight" attr.type="double"/>'
    edge = f'<edge source="0" target="2"><data key="w">{weight}</data></edge>'
    return graphml(NODES + EDGES + edge, after=key)


def laughs(levels: int) -> str:
    names = [f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, levels)]
    return f'<!DOCTYPE l [<!ENTITY a0 "ha">{"".join(names)}]>'


GRAPHS = {
    "laughs.graphml": (graphml('<node id="&a9;"/>', laughs(10)), "declares entities"),
    "external.graphml": (
        graphml('<node id="1">&x;</node>', '<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        "declares entities",
    ),
    "parameter.graphml": (
        graphml(before='<!DOCTYPE l [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]>'),
        "declares entities",
    ),
    "two.graphml": (graphml(after='<graph edgedefault="directed"/>'), "2 graphs"),
    "none.graphml": (f"<graphml {NAMESPACE}/>".encode(), "0 graphs"),
    "hyper.graphml": (graphml(NODES + "<hyperedge/>"), "hyperedges"),
    "type.graphml": (graphml(after='<key id="w" for="edge" attr.name="x" attr.type="bogus"/>'), "'bogus'"),
    "encoding.graphml": (graphml().replace(b'"1.0"', b'"1.0" encoding="bogus"'), "encoding"),
    "nan.graphml": (weighted("nan"), "weight nan"),
    "negative.graphml": (weighted("-3"), "weight -3"),
    "zero.graphml": (weighted("0.0"), "weight 0.0"),
    "infinite.edges": (b"0 1 inf\n", "line 1 has weight inf"),
    "zero.edges": (b"0 1 1\n1 2 0\n", "line 2 has weight 0"),
    "dictionary.edges": (b"0 1 {'weight': -2}\n", "line 1 has weight -2"),
    "one-name.edges": (b"0 1\n2\n", "line 2 holds one name"),
    "null.edges": (b"0 1\n1 \x002\n", "line 2 holds characters"),
    "latin.edges": (b"0 \xff\n", "utf-8"),
    "empty.edges": (b"# 0 1\n", "no edge"),
    "long-line.edges": (b"0 1" + b" " * 10_000, "longer than 4,096"),
    "not-gzip.edges.gz": (b"0 1\n", "gzip"),
    "cut.edges.gz": (gzip.compress(b"0 1\n" * 1000)[:-9], "ended before"),
    "cut.graphml.bz2": (bz2.compress(graphml())[:-9], "ended before"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_broken_graph_is_refused_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, words = GRAPHS[name]
    (tmp_path / name).write_bytes(content)
    arguments = [
        "--set",
        "graph.kind=file",
        "--set",
        f"graph.path={tmp_path / name}",
        "--set",
        "task.tokens=4",
    ]
    assert run(["check", "demo", *arguments], monkeypatch) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"tokenfield: graph.path = '{tmp_path / name}' is not possible")
    assert words in err


@pytest.mark.parametrize(
    ("name", "content", "tokens"),
    [
        ("plain.graphml", graphml(), 4),
        ("packed.graphml.gz", gzip.compress(graphml()), 4),
        ("doctype.graphml", graphml(before='<!DOCTYPE graphml SYSTEM "http://127.0.0.1:1/x.dtd">'), 4),
        ("loops.edges", b"0 0\n0 1\n0 1\n1 0\n", 2),
        ("words.edges.bz2", bz2.compress("anna ²\n² --3\n".encode()), 3),
        ("weights.edges", b"10 20 3.5\n20 30 {'weight': 1}\n30 40 friends since 1990\n", 4),
        ("mark.edges", b"\xef\xbb\xbf0 1\n1 0\n", 2),
        ("large-names.edges", b"9" * 400 + b" " + b"9" * 399 + b"8\n", 2),
    ],
)
def test_an_unusual_graph_is_read(name: str, content: bytes, tokens: int, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    graph = relabelled(read_named(tmp_path / name))
    assert sorted(graph.nodes) == list(range(tokens))
    assert not list(nx.selfloop_edges(graph))


def test_names_beyond_double_precision_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "graph.edges").write_text(f"{10**30 + 1} {10**30}\n{10**30 + 2} {10**30 + 1}\n")
    assert set(relabelled(read_named(tmp_path / "graph.edges")).to_undirected().edges) == {(0, 1), (1, 2)}


def test_a_graph_of_a_hundred_million_edges_is_refused_before_it_is_kept(tmp_path: Path) -> None:
    packed = tmp_path / "graph.edges.gz"
    packed.write_bytes(gzip.compress(b"0 1\n" * 10**6) * 100)
    element = gzip.compress(b'<edge source="0" target="1"/>' * 10**5)
    (tmp_path / "graph.graphml.gz").write_bytes(gzip.compress(b"<graphml>") + element * 1000)
    sparse = tmp_path / "graph.edges"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    tracemalloc.start()
    for path, words in ((packed, "GiB"), (packed.with_name("graph.graphml.gz"), "GiB"), (sparse, "longer")):
        with pytest.raises(ValueError, match=words):
            relabelled(read_named(path, free=2**23))
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


@settings(max_examples=80)
@given(damage=damages(), name=st.sampled_from(["graph.graphml", "graph.edges", "graph.edges.gz"]))
def test_a_damaged_graph_is_a_graph_or_refused(
    damage: Callable[[bytes], bytes], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edges = b"0 1\n1 2 {'weight': 3.0}\n2 3 1.5\n"
    whole = {"graph.graphml": weighted("1"), "graph.edges": edges, "graph.edges.gz": gzip.compress(edges)}
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(damage(whole[name]))
    try:
        graph = relabelled(read_named(path))
        assert sorted(graph.nodes) == list(range(len(graph)))
    except (OSError, ValueError) as failure:
        assert str(failure)


# Arguments in Python


def weights(fill: float = 0.1, width: int = 3, dim: int = 7, heads: int = 1) -> Learned:
    def affine(rows: int, columns: int) -> Affine:
        return Affine(np.full((rows, columns), fill), np.full(rows, fill))

    update = (affine(5, width + heads), affine(width, 5))
    layer = Layer(affine(heads * dim, width), affine(heads, width), update)
    return Learned(np.full(width, fill), (layer, layer), np.full((dim, width), fill), heads, True)


def changed(**arrays: Any) -> Learned:
    """Weights that no constructor would make: shapes are checked while tests run."""
    learned = copy(weights())
    for name, value in arrays.items():
        object.__setattr__(learned, name, value)
    return learned


def edges_of_weight(weight: float) -> "nx.Graph[int]":
    graph = nx.cycle_graph(4)
    nx.set_edge_attributes(graph, weight, "weight")
    return graph


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({}, "learned = None"),
    "weights as a table": ({"learned": {"a": 1}}, "learned = {'a': 1}"),
    "weights that are not numbers": ({"learned": weights(np.nan)}, "learned.start_vector .* finite"),
    "infinite weights": ({"learned": weights(np.inf)}, "learned.layers.0..query.weight .* finite"),
    "weights of another dimension": ({"learned": weights(dim=5)}, r"learned.readout .* \(7, 3\)"),
    "weights of another width": (
        {"learned": changed(start_vector=np.ones(4))},
        r"learned.readout .* \(7, 4\)",
    ),
    "weights as objects": ({"learned": changed(start_vector=np.array([None] * 3))}, "real numbers"),
    "weights that are complex": ({"learned": changed(start_vector=np.ones(3) * 1j)}, "real numbers"),
    "more heads than channels": ({"learned": weights(heads=2)}, "channel.channels = 1 .* 2, the heads"),
    "edges of weight nan": ({"graph": edges_of_weight(np.nan)}, "weight nan"),
    "edges of weight zero": ({"graph": edges_of_weight(0)}, "weight 0"),
    "a graph as a list": ({"graph": [(0, 1)]}, r"graph = \[\(0, 1\)\]"),
    "a graph without nodes": ({"graph": nx.Graph()}, "as many nodes"),
    "no prompt": ({"prompts": range(0)}, "prompts"),
    "negative prompts": ({"prompts": range(-3, 2)}, "prompts"),
    "every third prompt": ({"prompts": range(0, 9, 3)}, "prompts"),
    "prompts beyond 32 bits": ({"prompts": range(2**40, 2**40 + 1)}, "prompts"),
    "an experiment as a table": ({"experiment": {"task": 1}}, "an Experiment"),
    "an experiment past its checks": (
        {
            "experiment": SMALL.model_copy(
                update={"channel": SMALL.channel.model_copy(update={"noise": np.nan})}
            )
        },
        "channel.noise = nan",
    ),
    **{
        f"the name {name[:9]!r}": ({"name": name}, "name")
        for name in (
            "../escaped",
            "/tmp/escaped",
            "a/b",
            "a\\b",
            "..",
            ".",
            "",
            "-rf",
            "a\0b",
            "a\nb",
            "x" * 300,
        )
    },
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_an_argument_that_cannot_be_is_refused_before_anything_is_stored(case: str, tmp_path: Path) -> None:
    given, words = ARGUMENTS[case]
    learned = "learned" in given or case == "no weights"
    experiment = SMALL.with_values({"policy.kind": "learned"} if learned else {})
    with pytest.raises(UsageError, match=words):
        simulate(**{"experiment": experiment, "out": tmp_path / "runs", **given})
    assert contents(tmp_path) == {}
    assert not list(tmp_path.parent.glob("escaped*"))


def test_weights_without_a_learned_policy_are_refused() -> None:
    with pytest.raises(UsageError, match=r"policy\.kind = 'adaptive'"):
        simulate(SMALL, learned=weights())


@pytest.mark.parametrize(
    "given",
    [
        {"atoms": np.full((8, 7), np.nan)},
        {"factor": np.full((7, 1), np.inf)},
        {"weights": np.full(8, np.nan)},
        {"weights": np.ones(8)},
        {"weights": np.array([-1.0, 2, 0, 0, 0, 0, 0, 0])},
    ],
    ids=str,
)
def test_a_prior_of_other_than_finite_numbers_and_probabilities_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of a prior must be"):
        replace(build(SMALL).prior, **given)


def test_numbers_that_overflow_end_the_run_by_name(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite"), np.errstate(all="ignore"):
        simulate(SMALL.with_values({"policy.kind": "learned"}), learned=weights(1e200), out=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not open_run(folder).is_complete


# Folders that are written


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with files of the user's, which nothing may touch."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    return tmp_path


@pytest.mark.parametrize("out", ["file", "file/below", "loop", "dangling", "x" * 300])
@pytest.mark.parametrize("command", [["run"], ["check", "--figure"], ["theory", "--figure"], ["train"]])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(
    command: list[str],
    out: str,
    there: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = contents(there)
    name, *options = command
    assert run([name, "demo", *options, *LOCAL, "--out", str(there / out)], monkeypatch) == 2
    stdout, err = capfd.readouterr()
    assert (stdout, contents(there)) == ("", before)
    assert "a folder that can be written" in err
    assert "training" not in err


@pytest.mark.parametrize("fails_at", [1, 2, 5, 9])
def test_a_disk_that_fills_up_leaves_a_run_that_is_known_as_partial(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    finished = simulate(SMALL, out=tmp_path).folder
    before, written, write = contents(tmp_path), 0, pq.write_table

    def full(table: pa.Table, file: Any, **options: Any) -> None:
        nonlocal written
        written += 1
        file.write(b"PAR1")
        if written >= fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.truncate(0)
        file.seek(0)
        write(table, file, **options)

    monkeypatch.setattr("runner.storage.files.pq.write_table", full)
    arguments = ["run", "demo", *LOCAL, "--set", "run.trace=full", "--set", "graph.kind=ring"]
    assert run([*arguments, "--out", str(tmp_path)], monkeypatch) == 1
    err = capfd.readouterr().err
    assert "cannot be written: No space left on device" in err
    assert "Traceback" not in err
    assert contents(tmp_path).items() >= before.items(), "another run was touched"
    (partial,) = set(tmp_path.iterdir()) - {finished}
    assert not [path for path in partial.rglob("*") if "partial" in path.name]
    stopped = open_run(partial)
    assert not stopped.is_complete
    for name in TABLES:
        try:
            assert len(getattr(stopped, name))
        except FileNotFoundError as failure:
            assert "stopped before its end" in str(failure)


def test_a_full_terminal_is_told_without_a_traceback() -> None:
    program = "from runner.cli.exit import exit_codes\nwith exit_codes(): print('risk ± 0')"
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "tokenfield: failed: [Errno 28] No space left on device\n"


def test_a_file_that_is_written_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    mine, target = tmp_path / "mine", tmp_path / "weights.safetensors"
    mine.write_text("mine")
    target.symlink_to(mine)
    write_arrays(target, {}, {"a": np.ones(2)})
    assert mine.read_text() == "mine"
    assert not target.is_symlink()
    assert read_arrays(target)[1]["a"].tolist() == [1.0, 1.0]


# Runs that are read


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(SMALL, out=tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def tables(finished: Simulation) -> dict[str, pd.DataFrame]:
    return {name: getattr(open_run(finished.folder or ""), name) for name in TABLES}


@pytest.fixture
def folder(finished: Simulation, tmp_path: Path) -> Path:
    """A run that a test may break."""
    return Path(shutil.copytree(finished.folder or "", tmp_path / "run"))


def read_all(run: Run) -> dict[str, pd.DataFrame]:
    return {name: getattr(run, name) for name in TABLES}


def rewrite(folder: Path, **keys: Any) -> None:
    """Change a manifest so that its digest is right."""
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({**content, "digest": digest_of(content)}))


MANIFESTS = {
    "empty": (b"", "damaged"),
    "cut": (b'{"schema": 1, "stat', "damaged"),
    "not UTF-8": (b'{"schema": "\xff"}', "damaged"),
    "deep": (b"[" * 100_000, "damaged"),
    "large integer": (b'{"schema": ' + b"9" * 5000 + b"}", "damaged"),
    "large": (b" " * 2**21, "more than"),
    "a list": (b"[1]", "no manifest"),
    "null": (b"null", "no manifest"),
    "without schema": (b"{}", "no manifest"),
    "schema as text": (b'{"schema": "1"}', "no manifest"),
    "schema as truth": (b'{"schema": true}', "no manifest"),
    "schema nan": (b'{"schema": NaN}', "no manifest"),
    "schema too old": (b'{"schema": 0}', "no manifest"),
    "schema too new": (b'{"schema": 99}', "upgrade"),
    "of another digest": (b'{"schema": 1, "digest": "0"}', "was changed"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_broken_manifest_is_refused_by_name(name: str, folder: Path) -> None:
    content, words = MANIFESTS[name]
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UnreadableError, match=words) as caught:
        open_run(folder)
    assert str(folder / "manifest.json") in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"status": "done"}, "status 'done'"),
        ({"experiment": None}, "experiment = None"),
        ({"experiment": {"prior": 3}}, "prior = 3"),
        ({"experiment": {"run": {"rounds": True, "trace": "full"}}}, r"run\.rounds = True"),
        ({"experiment": {"run": {"rounds": -1, "trace": "full"}}}, r"run\.rounds = -1"),
        ({"experiment": {"run": {"rounds": 2, "trace": None}}}, r"run\.trace = None"),
        ({"experiment": {"later": {}}}, r"run\.rounds = None"),
        ({"tables": 3}, "tables = 3"),
    ],
)
def test_a_manifest_of_other_content_is_refused_by_its_key(
    keys: dict[str, Any], words: str, folder: Path
) -> None:
    rewrite(folder, **keys)
    with pytest.raises(UnreadableError, match=words):
        open_run(folder)


def test_a_run_of_the_first_release_is_read(tmp_path: Path) -> None:
    """Which stated no digests."""
    second = Path(__file__).parents[1] / "golden" / "schema-2"
    first = shutil.copytree(second, tmp_path / "run")
    content = json.loads((first / "manifest.json").read_text())
    del content["tables"], content["digest"]
    (first / "manifest.json").write_text(json.dumps({**content, "schema": 1}))
    for name in ("messages", "workspaces", "prompts", "rounds"):
        pd.testing.assert_frame_equal(getattr(open_run(first), name), getattr(open_run(second), name))


def test_a_manifest_of_this_schema_without_its_digest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_text(json.dumps(content))
    with pytest.raises(UnreadableError, match="was changed"):
        open_run(folder)


ONE, TWO = (f"messages/{part_name(0, round)}" for round in (1, 2))


def link(path: Path, target: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(target)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is missing": (lambda run: (run / ONE).unlink(), "lacks batch-00000-round-001"),
    "the last part is missing": (lambda run: (run / TWO).unlink(), "of 2 files 1 are there"),
    "a part is there twice": (lambda run: shutil.copy(run / ONE, run / ONE.replace("000-", "009-")), "lacks"),
    "a table is missing": (lambda run: (run / "rounds.parquet").unlink(), "of 1 files 0 are there"),
    "a table of parts is missing": (lambda run: shutil.rmtree(run / "messages"), "of 2 files 0 are there"),
    "a table is a file": (
        lambda run: (shutil.rmtree(run / "prompts"), (run / "prompts").touch()),
        "no folder",
    ),
    "two parts are exchanged": (
        lambda run: (
            (run / ONE).rename(run / "x"),
            (run / TWO).rename(run / ONE),
            (run / "x").rename(run / TWO),
        ),
        "its bytes are others",
    ),
    "a part is a link to elsewhere": (lambda run: link(run / ONE, PRESET), "leaves the run's folder"),
    "a table is a link to elsewhere": (lambda run: link(run / "messages", PRESET.parent), "leaves the run's"),
    "a part is a link to itself": (lambda run: link(run / ONE, run / ONE), "leaves the run's folder"),
    "other columns": (
        lambda run: (pq.write_table(pa.table({"a": [1]}), run / ONE), rewrite(run, tables={})),
        "other columns",
    ),
    "columns of other types": (
        lambda run: (
            pq.write_table(pa.table({"round": ["x"], "seconds": [1.0]}), run / "timing.parquet"),
            rewrite(run, tables={}),
        ),
        "other columns",
    ),
    "no Parquet": (
        lambda run: ((run / "rounds.parquet").write_bytes(b"PAR1 PAR1"), rewrite(run, tables={})),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_table_that_is_not_as_it_was_written_is_refused(case: str, folder: Path) -> None:
    breaks, words = BREAKS[case]
    breaks(folder)
    with pytest.raises(UnreadableError, match=words) as caught:
        read_all(open_run(folder))
    assert str(folder) in str(caught.value)


def test_a_table_larger_than_the_memory_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.traces.tables.available_memory", lambda: 1000)
    with pytest.raises(UnreadableError, match="GiB of memory"):
        open_run(folder).messages  # noqa: B018


def test_files_that_are_no_part_of_a_run_are_let_be(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    (folder / "messages" / "notes.txt").write_text("mine")
    (folder / "messages" / ".batch-00001-round-001.parquet.7.partial").write_bytes(b"PAR1")
    (folder / "messages" / "round=7").mkdir()
    shutil.copy(folder / ONE, folder / "messages" / "round=7")
    (folder / "messages" / "loop").symlink_to(folder / "messages")
    pd.testing.assert_frame_equal(open_run(folder).messages, tables["messages"])


FILES = {
    "manifest.json": "timing",
    ONE: "messages",
    f"workspaces/{part_name(0, 0)}": "workspaces",
    "rounds.parquet": "rounds",
}  # and a table that hangs on it


@pytest.fixture(scope="module")
def worn(finished: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose files are damaged and repaired again and again."""
    return Path(shutil.copytree(finished.folder or "", tmp_path_factory.mktemp("worn") / "run"))


@settings(max_examples=120)
@given(damage=damages(), name=st.sampled_from(list(FILES)))
def test_a_damaged_file_of_a_run_gives_the_right_tables_or_is_refused(
    damage: Callable[[bytes], bytes], name: str, worn: Path, tables: dict[str, pd.DataFrame]
) -> None:
    path = worn / name
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    try:
        found = open_run(worn)
        assert Experiment.model_validate(found.manifest["experiment"]) == SMALL
        pd.testing.assert_frame_equal(getattr(found, FILES[name]), tables[FILES[name]])
    except UnreadableError as failure:
        assert str(worn) in str(failure)
    finally:
        path.write_bytes(whole)


@settings(max_examples=80)
@given(damage=damages(), name=st.sampled_from(list(FILES)[1:]))
def test_a_damaged_file_of_a_stopped_run_is_read_or_refused(
    damage: Callable[[bytes], bytes], name: str, worn: Path
) -> None:
    """Nothing seals its tables yet: only their columns and the checksums of their pages are known."""
    path, manifest = worn / name, worn / "manifest.json"
    whole, complete = path.read_bytes(), manifest.read_bytes()
    rewrite(worn, status="running", tables={})
    path.write_bytes(damage(whole))
    try:
        getattr(open_run(worn), FILES[name])
    except UnreadableError as failure:
        assert str(worn) in str(failure)
    finally:
        path.write_bytes(whole)
        manifest.write_bytes(complete)


# Arrays


def said(header: dict[str, Any], held: bytes = b"") -> bytes:
    """A safetensors file that says something, and holds something else."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + held


def told(header: str, digest: str = "0") -> dict[str, Any]:
    return {"__metadata__": {"header": header, "digest": digest}}


LIES: dict[str, bytes] = {
    "a million million numbers": said(
        {"a": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8]}}, bytes(8)
    ),
    "fewer numbers than bytes": said(
        {"a": {"dtype": "F64", "shape": [2], "data_offsets": [0, 80]}}, bytes(80)
    ),
    "a negative shape": said({"a": {"dtype": "F64", "shape": [-1, -8], "data_offsets": [0, 64]}}, bytes(64)),
    "beyond the end": said({"a": {"dtype": "F64", "shape": [2], "data_offsets": [8, 24]}}, bytes(8)),
    "an unknown type": said({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "a header longer than the file": struct.pack("<Q", 2**60) + b"{}",
    "a header that is a list": said(told("[]")),
    "a header of no JSON": said(told("{")),
    "a deep header": said(told("[" * 10**5)),
    "another digest": said(told("{}")),
    "no header": said({}),
    "an archive of numpy": b"PK\x03\x04" + bytes(100),
    "a pickle": pickle.dumps({"a": print}),
    "a script": b"#!/bin/sh\n",
    "nothing": b"",
}


@pytest.mark.parametrize("case", LIES)
def test_arrays_that_lie_are_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    path.write_bytes(LIES[case])
    with pytest.raises(UnreadableError, match="damaged or not a file of tokenfield") as caught:
        read_arrays(path)
    assert str(path) in str(caught.value)


@settings(max_examples=120)
@given(damage=damages())
def test_damaged_arrays_are_right_or_refused(
    damage: Callable[[bytes], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    header, arrays = (
        {"of": {"code": "1"}},
        {"weights": np.arange(6.0).reshape(2, 3), "ended": np.ones(4, bool)},
    )
    write_arrays(path, header, arrays)
    path.write_bytes(damage(path.read_bytes()))
    try:
        found, content = read_arrays(path)
    except UnreadableError as failure:
        assert str(path) in str(failure)
        return
    assert found == header
    assert content.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(content[name], array)
