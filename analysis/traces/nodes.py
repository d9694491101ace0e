"""Who stands at which position: the table of nodes as a frame, and frames in which positions have names."""

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import shown

_OF_POSITIONS = ("sender", "receiver", "position")  # columns, of all tables
_MOST_TOKENS = 2**20


def numbered(tokens: Any) -> pd.DataFrame:
    """The nodes of a graph that has no names: each is called by its position.

    Args:
        tokens: N, as a manifest states it.

    Raises:
        ValueError: if it states none.

    Example:
        >>> numbered(3)["name"].tolist()
        ['0', '1', '2']
    """
    if type(tokens) is not int or not 0 < tokens <= _MOST_TOKENS:
        raise ValueError(f"task.tokens = {shown(tokens)}")
    positions = np.arange(tokens, dtype=np.int64)
    return pd.DataFrame({"position": positions, "name": positions.astype(str)})


def unpacked(table: pd.DataFrame) -> pd.DataFrame:
    """The table of nodes with a column for each attribute, missing where a node has none.

    An attribute that has the name of another column gets an underscore behind its own.

    Args:
        table: position, name, attributes (JSON).

    Raises:
        ValueError: if the attributes are no objects of JSON, or positions and names are no numbering.

    Example:
        >>> rows = [(0, "a", "{}"), (1, "b", '{"club": 3}')]
        >>> table = pd.DataFrame(rows, columns=["position", "name", "attributes"])
        >>> unpacked(table)["club"].tolist()
        [<NA>, 3]
    """
    if table["position"].tolist() != list(range(len(table))) or not table["name"].is_unique:
        raise ValueError("positions are not 0, 1, ..., or have one name twice")
    try:
        rows = [dict(json.loads(text)) for text in table["attributes"]]
    except (ValueError, TypeError, RecursionError) as failure:
        raise ValueError(f"attributes are no objects of JSON: {failure}") from None
    found = table[["position", "name"]].copy()
    for key in sorted({key for row in rows for key in row}):
        column = key
        while column in found:
            column += "_"
        found[column] = pd.array([row.get(key) for row in rows])
    return found


def with_names(frame: pd.DataFrame, nodes: pd.DataFrame) -> pd.DataFrame:
    """A copy with the name behind each column of positions: `sender_name`, `receiver_name`, `position_name`.

    Args:
        frame: of the run whose nodes they are.
        nodes: position, name.

    Raises:
        ValueError: if the frame has no such column, positions that the run has not, or names already.

    Example:
        >>> with_names(pd.DataFrame({"sender": [1, 1, 0]}), numbered(2))["sender_name"].tolist()
        ['1', '1', '0']
    """
    columns = [column for column in _OF_POSITIONS if column in frame]
    if not columns:
        raise ValueError(f"the frame has none of the columns {', '.join(_OF_POSITIONS)}")
    found, names = frame.copy(), pd.Index(nodes["name"])
    for column in columns:
        if f"{column}_name" in frame:
            raise ValueError(f"the frame has a column {column}_name already")
        if not pd.api.types.is_integer_dtype(frame[column]):
            raise ValueError(f"{column} holds {frame[column].dtype}, positions are integers")
        codes = frame[column].to_numpy(np.int64)
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(names):
            raise ValueError(f"{column} has positions that the run has not: it has 0 to {len(names) - 1}")
        called = pd.Series(pd.Categorical.from_codes(codes, names), found.index)
        found.insert(list(found).index(column) + 1, f"{column}_name", called)
    return found
