"""Open a run as pandas frames: all that was written, as it was written, or an error that says what is not."""

import json
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from os import PathLike
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.errors import UnreadableError, printable, shown
from analysis.traces.location import Location, Place, place
from analysis.traces.nodes import numbered, unpacked, with_names
from analysis.traces.schema import KEYS, SCHEMA_VERSION, SCHEMAS, digest_of, group_of
from analysis.traces.tables import Laid, Wanted, files_of, read_table

if TYPE_CHECKING:
    import networkx as nx
    import pyarrow.dataset
    import xarray

_MOST_ROUNDS = 10**6
_MOST_BYTES = 2**20  # of a manifest, which takes two KiB
_MOST_EDGES = 10**7  # of a graph that is made in memory


@dataclass(frozen=True, repr=False)
class Run:
    """A run on disk. Each table is read when it is first asked for, and whole; `table` reads some of it.

    The round is `frame["round"]`, never `frame.round`, which is a method of every pandas frame:
    `frame.round == 1` is False without an error. Integers have 64 bits, whatever they take on disk, so that
    keys made of several columns do not overflow.

    Raises:
        FileNotFoundError: for a table that the run did not store.
        UnreadableError: for one whose files are missing, damaged, changed, not of this run, or do not fit
            into the memory.

    Attributes:
        folder: the run's folder, or its place on shared storage.
        manifest: what was run, with which code, and how far it came.
    """

    folder: Place
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        given = self.experiment
        policy, graph = getattr(given.policy, "kind", "?"), getattr(given.graph, "kind", "?")
        return (
            f"Run({self.folder.name!r}: {policy} on {graph}, {given.task.tokens} tokens, "
            f"{given.run.rounds} rounds, {len(self._laid.prompts):,} prompts, {self.manifest['status']}, "
            f"trace {given.run.trace})"
        )

    @property
    def experiment(self) -> SimpleNamespace:
        """The experiment that was run: `run.experiment.task.tokens`, and so on for every key of its file."""
        tables = self.manifest["experiment"].items()
        return SimpleNamespace(**{name: SimpleNamespace(**keys) for name, keys in tables})

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest["status"] == "complete")

    @property
    def needs_objects(self) -> bool:
        """Whether it cannot be played again from what is stored: objects were handed in that are not, or
        messages were altered on their way."""
        given = any(self.manifest.get(key) for key in ("handed_in", "nodes", "weights"))
        return given or self.manifest.get("engine") == "altered"

    @cached_property
    def messages(self) -> pd.DataFrame:
        """round, sender, prompt, channel, code, value, wire (integer), clipped, bits; the round is
        `messages["round"]`, never `messages.round`, which is a method."""
        return self.table("messages")

    @cached_property
    def workspaces(self) -> pd.DataFrame:
        """round, position, prompt, error |w - w_i|^2, effective (N_eff), claimed E|w - w_i|^2, estimate_1 to
        _d, by level correct_1 to _D and entropy_1 to _D (bits), by atom belief_0 to _A-1; the round is
        `workspaces["round"]`, never `workspaces.round`."""
        return self.table("workspaces")

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """round, prompt, risk (relative, mean over positions), clipped; the round is `prompts["round"]`,
        never `prompts.round`."""
        return self.table("prompts")

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """round, source, risk, risk_se, bits, messages, clipped; the round is `rounds["round"]`, never
        `rounds.round`."""
        return self.table("rounds")

    @cached_property
    def timing(self) -> pd.DataFrame:
        """round, seconds: the one table that differs from engine to engine; the round is `timing["round"]`,
        never `timing.round`."""
        return self.table("timing")

    @cached_property
    def truths(self) -> pd.DataFrame:
        """prompt, atom, vector_1 to _d: the true w; exact_0 to _A-1: P(atom) given all examples."""
        return self.table("truths")

    @cached_property
    def atoms(self) -> pd.DataFrame:
        """atom, mass, vector_1 to _d, branch_1 to _D: the prior, and which node each atom passes by level."""
        return self.table("atoms")

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """position, name, and the attributes of the nodes of a graph that was handed in or read from a file.

        Where the graph is of a family, and in runs that are older than this table, a name is its position.
        """
        try:
            if self.manifest.get("nodes") is None:
                return numbered(self.manifest["experiment"].get("task", {}).get("tokens"))
            return unpacked(self.table("nodes"))
        except UnreadableError:
            raise
        except ValueError as failure:
            raise UnreadableError(f"{self.folder}: who stands where is damaged ({failure})") from None

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """Who hears whom: an edge from sender to receiver; nodes are called by their names, and have position
        and attributes. A token hears itself too, which is no edge here."""
        import networkx as nx

        found: nx.DiGraph[str] = nx.DiGraph()
        nodes = self.nodes
        names = nodes["name"].tolist()
        for row in nodes.to_dict("records"):
            kept = {str(key): value for key, value in row.items() if key != "name" and value is not pd.NA}
            found.add_node(row["name"], **kept)
        if (self.folder / "graph.parquet").exists():
            edges = self.table("graph")
            apart = edges[edges["sender"] != edges["receiver"]]
            found.add_edges_from(
                (names[sender], names[receiver])
                for sender, receiver in zip(apart["sender"], apart["receiver"], strict=True)
            )
            return found
        if self.experiment.run.trace == "none":
            raise FileNotFoundError(self._lacks("graph"))
        if len(names) ** 2 > _MOST_EDGES:
            raise UnreadableError(
                f"{self.folder}: all {len(names):,} tokens hear all, which is no graph to hold in memory"
            )
        found.add_edges_from((one, other) for one in names for other in names if one != other)
        return found

    def table(
        self,
        name: str,
        *,
        rounds: Any = None,
        positions: Any = None,
        prompts: Any = None,
        columns: Any = None,
    ) -> pd.DataFrame:
        """A table of the run, or some of it: files and row groups without a wanted row are not read.

        Args:
            name: messages, workspaces, prompts, rounds, timing, truths, atoms, graph or nodes.
            rounds: which rounds, as any sequence of integers.
            positions: which senders of messages, positions of workspaces, likewise.
            prompts: which prompts, likewise.
            columns: names of columns.

        Raises:
            ValueError: if there is no such table or column, or nothing to choose by.
        """
        if name not in SCHEMAS:
            raise ValueError(f"name = {shown(name)} is no table; possible: {', '.join(SCHEMAS)}")
        wanted = Wanted(
            _indices("rounds", rounds), _indices("positions", positions), _indices("prompts", prompts),
            _names(columns),
        )  # fmt: skip
        table = read_table(self._laid, name, wanted)
        if table is None:
            raise FileNotFoundError(self._lacks(name))
        kept = self.manifest["experiment"].get("trace", {}).get("columns")
        if name in KEYS and isinstance(kept, list) and columns is None:
            return table[[str(column) for column in table if group_of(str(column)) in (*KEYS[name], *kept)]]
        return table

    def dataset(self, name: str) -> "pyarrow.dataset.Dataset":
        """The files of a table as a pyarrow dataset, for what is larger than the memory."""
        import pyarrow.dataset as datasets

        files = files_of(self._laid, name)
        if not files:
            raise FileNotFoundError(self._lacks(name))
        if isinstance(self.folder, Location):
            return datasets.dataset([file.path for file in files], filesystem=self.folder.system)  # type: ignore[union-attr]
        return datasets.dataset([str(file) for file in files])

    def to_xarray(self) -> "xarray.Dataset":
        """The workspaces as arrays over round, position and prompt; estimates also over component, what is
        known of branches over level, beliefs over atom.

        Raises:
            ImportError: if xarray is not installed.
        """
        import xarray

        frame = self.workspaces
        flat = frame.set_index(["round", "position", "prompt"]).to_xarray()
        found = xarray.Dataset(coords=flat.coords)
        along = {"estimate": "component", "correct": "level", "entropy": "level", "belief": "atom"}
        columns = [str(column) for column in flat.data_vars]
        for group in dict.fromkeys(map(group_of, columns)):
            parts = [flat[column] for column in columns if group_of(column) == group]
            found[group] = xarray.concat(parts, along[group]) if group in along else parts[0]
        return found

    def named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of a frame of this run with the names of its positions: `sender_name`, `position_name`.

        Args:
            frame: with a column sender, receiver or position; the names behind it are categories.

        Raises:
            ValueError: if the frame has no such column, or positions that the run has not.
        """
        return with_names(frame, self.nodes)

    @cached_property
    def _laid(self) -> Laid:
        manifest = self.manifest
        prompts = manifest.get("prompts", [0, 0])
        return Laid(
            self.folder,
            self.experiment.run.rounds,
            range(*prompts),
            manifest.get("batch", 1),
            manifest.get("sizes"),
            manifest.get("tables", {}),
        )

    def _lacks(self, name: str) -> str:
        """Why a table is not there."""
        given = self.experiment.run
        if name == "graph":
            return f'{self.folder} holds no table "{name}": all hear the same, or nothing was traced'
        if name == "nodes" and self.manifest.get("nodes") is None:
            return f'{self.folder} holds no table "{name}": its nodes have no names but their positions'
        if not given.rounds and name == "messages":
            return f'{self.folder} holds no table "{name}": run.rounds = 0'
        if self.manifest["schema"] < 3 and name in ("truths", "atoms"):
            return f'{self.folder} holds no table "{name}": its schema is older than that'
        stopped = "" if self.is_complete else ", and was stopped before its end"
        traced = f'the run was traced with run.trace = "{given.trace}"'
        return f'{self.folder} holds no table "{name}": {traced}{stopped}'


def open_run(path: Place | str) -> Run:
    """Open a run's folder.

    A run that was stopped is opened too, and is not `is_complete`: its tables hold what it came to.

    Args:
        path: of the folder, or its URI.

    Raises:
        FileNotFoundError: if there is no run.
        UnreadableError: a ValueError, if the manifest is damaged, was changed since it was written, or is of
            a schema that this version does not know; it names the file and what is wrong.

    Example:
        >>> import tempfile
        >>> from runner import Experiment, simulate
        >>> small = Experiment().with_values({"task.prompts": 20, "run.trace": "full"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = open_run(simulate(small, out=folder).folder)
        ...     len(run.messages) == 32 * 20 * 4
        True
    """
    if not isinstance(path, str | PathLike | Location):
        possible = "the path of a run's folder; a run is stored where runner.simulate is given out=..."
        raise UnreadableError(f"path = {shown(path)} is not possible; possible: {possible}")
    folder = place(path)
    manifest = folder / "manifest.json"
    try:
        if not manifest.is_file():
            raise FileNotFoundError(f"no run at {folder}: it has no manifest.json")
        with manifest.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise UnreadableError(f"{manifest} cannot be read ({failure.strerror})") from None
    if len(text) > _MOST_BYTES:
        raise UnreadableError(f"{manifest} is no manifest of a run: it has more than {_MOST_BYTES:,} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise UnreadableError(f"{manifest} is damaged: {failure}") from None
    _check_manifest(manifest, content)
    return Run(folder, content)


def _indices(key: str, given: Any) -> list[int] | None:
    """Rounds, positions or prompts that were asked for, of any kind of sequence.

    Raises:
        ValueError: if they are no integers.
    """
    if given is None:
        return None
    try:
        found = list(given)
    except TypeError:
        found = [None]
    if isinstance(given, str | bytes) or not all(
        isinstance(one, Integral) and not isinstance(one, bool) for one in found
    ):
        raise ValueError(f"{key} = {shown(given)} is not possible; possible: integers, as [0, 2] or range(3)")
    return [int(one) for one in found]


def _names(given: Any) -> list[str] | None:
    """Columns that were asked for.

    Raises:
        ValueError: if they are no names, or there are none.
    """
    if given is None:
        return None
    found = [given] if isinstance(given, str) else list(given)
    if not found or not all(isinstance(one, str) for one in found):
        raise ValueError(f"columns = {shown(given)} is not possible; possible: one or more names")
    return found


def _check_manifest(path: Place, content: Any) -> None:
    """Refuse what no version wrote, what a newer one wrote, and what was changed since."""
    if not isinstance(content, dict) or type(schema := content.get("schema")) is not int or schema < 1:
        raise UnreadableError(
            f"{path} is no manifest of a run: it states no schema from 1 to {SCHEMA_VERSION}"
        )
    if schema > SCHEMA_VERSION:
        raise UnreadableError(
            f"{path} has schema {shown(schema)}, this tokenfield reads up to {SCHEMA_VERSION}: upgrade it"
        )
    if (schema > 2 or "digest" in content) and content.get("digest") != digest_of(content):
        raise UnreadableError(f"{path} was changed since it was written: its digest is that of other content")
    if content.get("status") not in ("running", "stopped", "complete"):
        given = shown(content.get("status"))
        raise UnreadableError(f'{path} has status {given}; possible: "running", "stopped", "complete"')
    tables = content.get("tables", {})
    if not isinstance(tables, dict):
        raise UnreadableError(f"{path} is damaged: tables = {shown(tables)}")
    experiment = content.get("experiment")
    if not isinstance(experiment, dict):
        raise UnreadableError(f"{path} is damaged: experiment = {shown(experiment)}")
    for name, keys in experiment.items():
        if not isinstance(keys, dict):
            raise UnreadableError(f"{path} is damaged: experiment.{printable(name)} = {shown(keys)}")
    run = experiment.get("run", {})
    rounds, trace = run.get("rounds"), run.get("trace")
    if type(rounds) is not int or not 0 <= rounds <= _MOST_ROUNDS or not isinstance(trace, str):
        stated = f"run.rounds = {shown(rounds)}, run.trace = {shown(trace)}"
        raise UnreadableError(f"{path} is damaged: its experiment states {stated}")
    prompts, batch, sizes = content.get("prompts", [0, 0]), content.get("batch", 1), content.get("sizes")
    sound = isinstance(prompts, list) and [type(number) for number in prompts] == [int, int]
    sound = sound and type(batch) is int and batch > 0
    if schema > 2:
        sound = sound and isinstance(sizes, dict) and sizes.keys() == {"dim", "levels", "beliefs"}
        sound = sound and all(
            type(size) is int and 0 <= size <= _MOST_ROUNDS for size in (sizes or {}).values()
        )
    if not sound:
        stated = f"prompts = {shown(prompts)}, batch = {shown(batch)}, sizes = {shown(sizes)}"
        raise UnreadableError(f"{path} is damaged: it states {stated}")
