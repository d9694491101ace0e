"""The tables of a run: their columns, the names of their files, and the digest by which changes are found."""

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pyarrow as pa

from analysis.traces.location import Place

# The second added the table of nodes; the third numbered columns in place of lists, what a belief claims and
# is, the truth, and the atoms of the prior.
SCHEMA_VERSION = 3

MESSAGES = pa.schema(
    {
        "round": pa.int16(),
        "sender": pa.int32(),
        "prompt": pa.int32(),
        "channel": pa.int16(),
        "code": pa.int16(),
        "value": pa.float64(),
        "wire": pa.int64(),
        "clipped": pa.bool_(),
        "bits": pa.int16(),
    }
)
WORKSPACES = pa.schema(
    {
        "round": pa.int16(),
        "position": pa.int32(),
        "prompt": pa.int32(),
        "error": pa.float64(),
        "effective": pa.float32(),
        "claimed": pa.float32(),
    }
)
LISTED_WORKSPACES = pa.schema(  # of the first two schemas
    {
        "round": pa.int16(),
        "position": pa.int32(),
        "prompt": pa.int32(),
        "error": pa.float64(),
        "effective": pa.float64(),
        "estimate": pa.list_(pa.float64()),
        "correct": pa.list_(pa.bool_()),
        "entropy": pa.list_(pa.float64()),
    }
)
PROMPTS = pa.schema({"round": pa.int16(), "prompt": pa.int32(), "risk": pa.float64(), "clipped": pa.int64()})
ROUNDS = pa.schema(
    {
        "round": pa.int64(),
        "source": pa.string(),
        "risk": pa.float64(),
        "risk_se": pa.float64(),
        "bits": pa.int64(),
        "messages": pa.int64(),
        "clipped": pa.int64(),
    }
)
TIMING = pa.schema({"round": pa.int64(), "seconds": pa.float64()})
GRAPH = pa.schema({"receiver": pa.int32(), "sender": pa.int32(), "weight": pa.int64()})
# The attributes of a node are one object of JSON: they have any name, and at each node a type of their own.
NODES = pa.schema({"position": pa.int32(), "name": pa.string(), "attributes": pa.string()})
TRUTHS = pa.schema({"prompt": pa.int32(), "atom": pa.int32()})
ATOMS = pa.schema({"atom": pa.int32(), "mass": pa.float64()})
SCHEMAS: dict[str, pa.Schema] = {
    "messages": MESSAGES,
    "workspaces": WORKSPACES,
    "prompts": PROMPTS,
    "rounds": ROUNDS,
    "timing": TIMING,
    "graph": GRAPH,
    "nodes": NODES,
    "truths": TRUTHS,
    "atoms": ATOMS,
}
# Columns that are numbered, behind those of their table: their type, what says how many there are, and the
# first number. Components and levels are counted from 1, atoms from 0, as everywhere.
NUMBERED: dict[str, dict[str, tuple[pa.DataType, str, int]]] = {
    "workspaces": {
        "estimate": (pa.float32(), "dim", 1),
        "correct": (pa.bool_(), "levels", 1),
        "entropy": (pa.float32(), "levels", 1),
        "belief": (pa.float32(), "beliefs", 0),
    },
    "truths": {"vector": (pa.float64(), "dim", 1), "exact": (pa.float32(), "beliefs", 0)},
    "atoms": {"vector": (pa.float64(), "dim", 1), "branch": (pa.int32(), "levels", 1)},
}
# The columns that say which message or workspace a row is; of the others a run may keep some.
KEYS = {
    "messages": ("round", "sender", "prompt", "channel"),
    "workspaces": ("round", "position", "prompt"),
}
IN_PARTS = ("messages", "workspaces", "prompts", "truths")  # a file for each batch of prompts and round

_NUMBER = re.compile(r"_\d+$")
_PART = re.compile(r"batch-(\d{5,})-round-(\d{3})\.parquet")


def part_name(batch: int, round: int) -> str:
    """Name of the file that holds one round of one batch of prompts.

    Example:
        >>> part_name(0, 12)
        'batch-00000-round-012.parquet'
    """
    return f"batch-{batch:05d}-round-{round:03d}.parquet"


def part_of(name: str) -> tuple[int, int] | None:
    """Batch and round of a part's file; None for another file.

    Example:
        >>> part_of("batch-00000-round-012.parquet"), part_of("notes.txt")
        ((0, 12), None)
    """
    found = _PART.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def rounds_of(name: str, rounds: int) -> range:
    """The rounds of a table in parts: nothing is sent in round 0, and the truth stands there alone.

    Example:
        >>> rounds_of("messages", 2), rounds_of("truths", 2)
        (range(1, 3), range(0, 1))
    """
    return range(name == "messages", 1 if name == "truths" else rounds + 1)


def schema_of(name: str, sizes: Mapping[str, int] | None) -> pa.Schema:
    """The columns of a table on disk.

    Args:
        name: of the table.
        sizes: dim d, levels D and beliefs A of the run; None for one of the first two schemas.

    Example:
        >>> schema_of("atoms", {"dim": 2, "levels": 1, "beliefs": 2}).names
        ['atom', 'mass', 'vector_1', 'vector_2', 'branch_1']
    """
    if sizes is None:
        return LISTED_WORKSPACES if name == "workspaces" else SCHEMAS[name]
    fields = [*SCHEMAS[name]]
    for column, (kind, size, first) in NUMBERED.get(name, {}).items():
        fields += [pa.field(f"{column}_{first + index}", kind) for index in range(sizes[size])]
    return pa.schema(fields)


def group_of(column: str) -> str:
    """The name of a column without its number.

    Example:
        >>> group_of("estimate_3"), group_of("bits")
        ('estimate', 'bits')
    """
    return _NUMBER.sub("", column)


def numbered_columns(columns: Iterable[Hashable], group: str) -> list[str]:
    """The numbered columns of a group, in their order.

    Args:
        columns: names, or a frame.
        group: their name without a number.

    Example:
        >>> numbered_columns(["round", "entropy_1", "entropy_2", "error"], "entropy")
        ['entropy_1', 'entropy_2']
    """
    return [name for name in map(str, columns) if name != group and group_of(name) == group]


class TableDigest:
    """Says what a table's files hold, in the order in which they are written."""

    def __init__(self) -> None:
        self._files, self._digest = 0, hashlib.blake2b(digest_size=16)

    def add(self, path: Place) -> None:
        """One more file of the table."""
        with path.open("rb") as file:
            self._digest.update(path.name.encode() + hashlib.file_digest(file, hashlib.blake2b).digest())
        self._files += 1

    def content(self) -> dict[str, Any]:
        """What stands in the manifest."""
        return {"files": self._files, "digest": self._digest.hexdigest()}


def digest_of(manifest: Mapping[str, Any]) -> str:
    """The digest of a manifest, of all but itself.

    Example:
        >>> digest_of({"schema": 1}) == digest_of({"digest": "other", "schema": 1})
        True
    """
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
