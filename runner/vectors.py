"""A trained transformer taken apart: probes, queries, patching, steering, with a sentence for each claim.

This module stands above `analysis`, as `comparison` does.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from agents.transformer.export import export
from analysis.figures import save
from analysis.function_vector_figures import (
    caption_of,
    patching_map,
    probe_map,
    query_alignment,
    steering_curves,
)
from analysis.function_vector_study import FunctionVectors, measure_function_vectors
from analysis.verdict import vectors_sentence
from runner.assembly import mixing_for, prior_of, system_of
from runner.display import Display
from runner.errors import UsageError, UsageErrors
from runner.experiment import Experiment
from runner.folders import new_folder
from runner.models import trained_model
from runner.tables import write_table, write_text

_FEWEST = 40  # prompts; half of them fit the probes


@dataclass(frozen=True)
class Studied:
    """What a study of function vectors gives.

    Attributes:
        found: all measures.
        sentence: what was seen.
        folder: tables and figures.
        figures: paths of the figures.
    """

    found: FunctionVectors
    sentence: str
    folder: Path
    figures: list[Path]

    def tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Title and cells, by scale and layer, of what fits into a terminal."""
        patched = self.found.patching.query("pairs == 'part' and tokens == 'all'")
        asked = self.found.alignment.query("path == 'true'")
        return [
            ("accuracy of a linear probe for the branch", _cells(self.found.probes)),
            ("squared cosine of the query with the node of the own path", _cells(asked)),
            ("the same, of another prompt's query", _cells(asked, "control", "control_se")),
            ("answers that follow a donor, patched after the layer", _cells(patched)),
        ]

    def answer(self) -> dict[str, object]:
        """What `vectors --json` reports."""
        frames = {name: json.loads(frame.to_json(orient="records")) for name, frame in _frames(self.found)}
        return {
            **frames,
            "sentence": self.sentence,
            "figures": [str(path) for path in self.figures],
            "run": str(self.folder),
        }


def check_vectors(experiment: Experiment) -> None:
    """Refuse an experiment without scales, layers, or prompts enough to be taken apart.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    if experiment.prior.kind != "tree":
        possible = '"tree": other priors have no branches to read'
        raise UsageErrors([UsageError("prior.kind", experiment.prior.kind, possible)])
    if experiment.run.rounds < 1:
        raise UsageErrors([UsageError("run.rounds", experiment.run.rounds, "1 or more layers")])
    if experiment.task.prompts < _FEWEST:
        possible = f"{_FEWEST} or more, half of which fit the probes"
        raise UsageErrors([UsageError("task.prompts", experiment.task.prompts, possible)])


def study(experiment: Experiment, out: Path, display: Display, name: str = "vectors") -> Studied:
    """Train the experiment's transformer, or take it from the cache, and take it apart.

    Args:
        experiment: policy `learned`; its first half of prompts fits probes and directions, the other half is
            measured.
        out: folder below which the study is stored, and weights are cached.
        display: shows the progress.
        name: first part of the folder's name.
    """
    model = trained_model(experiment, out / "weights", display).model().double()
    prior, mixing = prior_of(experiment), mixing_for(experiment)
    system = system_of(experiment, prior, mixing, export(model))
    prompts = experiment.task.prompts
    with display.task("function vectors", 1):
        found = measure_function_vectors(model, system, mixing, range(prompts), prompts // 2)
    folder = new_folder(out, f"vectors-{name}-{experiment.identity()}")
    for table, frame in _frames(found):
        write_table(folder / f"{table}.parquet", pa.Table.from_pandas(frame, preserve_index=False))
    text = vectors_sentence(found.probes, found.alignment, found.patching)
    write_text(folder / "verdict.txt", text + "\n")
    caption = caption_of(system, mixing, prompts - prompts // 2)
    own = found.alignment[found.alignment["path"] == "true"]
    figures = [
        save(probe_map(found.probes, caption), folder, "probes"),
        save(query_alignment(own, found.spread, caption), folder, "queries"),
        save(patching_map(found.patching, caption), folder, "patching"),
        save(steering_curves(found.steering, caption), folder, "steering"),
    ]
    return Studied(found, text, folder, figures)


def _frames(found: FunctionVectors) -> list[tuple[str, pd.DataFrame]]:
    return list(asdict(found).items())


def _cells(rows: pd.DataFrame, value: str = "value", error: str = "se") -> pd.DataFrame:
    """value ± error by scale (rows) and layer (columns)."""
    cells = rows.assign(
        cell=[f"{mean:.3f}±{spread:.3f}" for mean, spread in zip(rows[value], rows[error], strict=True)]
    )
    table = cells.pivot(index="scale", columns="layer", values="cell")
    table.columns = [f"layer {layer}" for layer in table.columns]
    return table
