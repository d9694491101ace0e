"""The points of a sweep as frames: one tidy table, and the risk of every prompt for paired comparisons."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import UnreadableError
from analysis.statistics import paired_difference
from analysis.traces.location import Place, place

TABLE, PROMPTS, MANIFEST = "points.parquet", "prompts.parquet", "sweep.json"
CLAIMS, VERDICT = "claims.parquet", "verdict.txt"  # of a sweep whose file names a finding


@dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep on disk.

    Attributes:
        folder: of the sweep.
        manifest: base, what was varied, seeds, and with which code.
    """

    folder: Place
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        states = self.table.drop_duplicates("point")["status"].value_counts()
        counts = ", ".join(f"{count} {status}" for status, count in states.items())
        return f"Sweep({self.folder.name!r}: {counts}; varies {', '.join(self.keys)})"

    @property
    def keys(self) -> list[str]:
        """The dotted keys that set points apart."""
        return list(self.manifest["keys"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each point and round: point, the keys, round, risk, risk_se, prompts, seeds, bits, status
        (done, failed, missing), error. Of a point that failed there is one row, without numbers."""
        return self._read(TABLE)

    @property
    def last(self) -> pd.DataFrame:
        """The row of each point's last round; of a point that failed its one row."""
        return self.table.sort_values("round").groupby("point").tail(1).sort_values("point")

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """point, seed, round, prompt, risk: the last round's alone where the sweep says so."""
        return self._read(PROMPTS)

    @property
    def verdict(self) -> str | None:
        """The sentence of what it shows; None if its file names no finding, or points are missing."""
        path = self.folder / VERDICT
        return path.read_text(encoding="utf-8").strip() if path.exists() else None

    @cached_property
    def claims(self) -> pd.DataFrame:
        """claim, test, effect, low, high, needed, holds: of a sweep whose file names a finding."""
        return self._read(CLAIMS)

    def difference(self, one: dict[str, Any], other: dict[str, Any]) -> pd.DataFrame:
        """Risk of one point less that of another, by round, paired by seed and prompt.

        Args:
            one: keys that name a point.
            other: those of another one.

        Returns:
            round, value, se, prompts.

        Raises:
            ValueError: if keys name no point, or several.
        """
        risks = [
            self.prompts[self.prompts["point"] == self._point(keys)].set_index(["round", "seed", "prompt"])[
                "risk"
            ]
            for keys in (one, other)
        ]
        both = pd.concat(risks, axis=1, keys=["one", "other"], join="inner")
        rows = []
        for index, part in both.groupby(level="round"):
            estimate = paired_difference(part["one"].to_numpy(), part["other"].to_numpy())
            rows.append((index, float(estimate.value), float(estimate.error), len(part)))
        return pd.DataFrame(rows, columns=["round", "value", "se", "prompts"])

    def _point(self, keys: dict[str, Any]) -> int:
        points = self.table.drop_duplicates("point")
        unknown = [key for key in keys if key not in self.keys]
        if unknown:
            raise ValueError(f"{unknown} are no keys of the sweep; it varies {', '.join(self.keys)}")
        there = np.logical_and.reduce([points[key] == value for key, value in keys.items()])
        named = points.loc[there, "point"].tolist() if keys else points["point"].tolist()
        if len(named) != 1:
            raise ValueError(f"{keys} name {len(named)} points; name one, by {', '.join(self.keys)}")
        return int(named[0])

    def _read(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: the sweep was stopped before it was written")
        try:
            with path.open("rb") as file:
                return pd.read_parquet(file)
        except Exception as failure:  # pyarrow has errors of many kinds
            raise UnreadableError(f"{path} cannot be read ({failure})") from None


def open_sweep(path: Place | str) -> Sweep:
    """Open a sweep's folder.

    Args:
        path: of the folder, or its URI.

    Raises:
        FileNotFoundError: if there is none.
        UnreadableError: if its manifest is damaged.

    Example:
        >>> import tempfile
        >>> from runner import sweep
        >>> small = {"task.prompts": 20, "task.tokens": 8}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = sweep(set=small, grid={"channel.bits": [2, 8]}, out=folder, engine="local")
        ...     sorted(open_sweep(done.folder).table["channel.bits"].unique().tolist())
        [2, 8]
    """
    folder = place(path)
    manifest = folder / MANIFEST
    if not manifest.exists():
        raise FileNotFoundError(f"no sweep at {folder}: it has no {MANIFEST}")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if not isinstance(content["keys"], list):
            raise ValueError("keys are no list")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as failure:
        raise UnreadableError(f"{manifest} is damaged: {failure}") from None
    return Sweep(folder if not isinstance(folder, Path) else folder.absolute(), content)
