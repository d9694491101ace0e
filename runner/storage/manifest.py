"""The manifest of a run: what was run, on which prompts, by which code, and how far it came."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.policies.learned import Learned
from agents.step import MOST_BELIEFS
from analysis.traces.location import Place
from analysis.traces.schema import SCHEMA_VERSION, TableDigest, digest_of
from runner.built import Built
from runner.config.experiment import Experiment
from runner.errors import UsageError
from runner.source import fingerprint
from runner.storage.files import write_text

NAME = "manifest.json"


@dataclass(frozen=True)
class Batches:
    """The prompts of a run, batch by batch, and the weights it runs with.

    Attributes:
        prompts: consecutive prompt indices.
        batch: how many are played together; the parts of a trace are so long.
        weights: digest of the weights that were handed in; None without any.
    """

    prompts: range
    batch: int
    weights: str | None = None

    def after(self, done: int = 0) -> list[range]:
        """The batches after so many prompts.

        Example:
            >>> Batches(range(10, 15), batch=2).after(2)
            [range(12, 14), range(14, 15)]
        """
        first, stop = self.prompts.start + done, self.prompts.stop
        return [range(start, min(start + self.batch, stop)) for start in range(first, stop, self.batch)]


def weights_digest(learned: Learned | None) -> str | None:
    """Hash of all numbers of a learned policy."""
    if learned is None:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for layer in learned.layers:
        for affine in (layer.query, layer.emission, *layer.update):
            for part in affine:
                digest.update(part.tobytes())
    digest.update(learned.start_vector.tobytes() + learned.readout.tobytes())
    digest.update(repr((learned.channels, learned.control_variate)).encode())
    return digest.hexdigest()


def write_manifest(
    folder: Place,
    built: Built,
    batches: Batches,
    engine: str,
    status: str,
    digests: Mapping[str, TableDigest],
) -> None:
    """State what was run and how far it came; a complete run's manifest holds the digests of its tables.

    Raises:
        RunError: if it cannot be written.
    """
    content: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "status": status,
        "experiment": built.experiment.model_dump(mode="json"),
        "sizes": sizes_of(built),
        "identity": built.experiment.identity(),
        "mixing": built.mixing.digest().hex(),
        "nodes": built.nodes.digest() if built.nodes else None,
        "prompts": [batches.prompts.start, batches.prompts.stop],
        "batch": batches.batch,
        "weights": batches.weights,
        "handed_in": dict(built.handed_in),
        "code": fingerprint(),
        "revision": git_revision(Path(__file__)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "engine": engine,
    }
    if status == "complete":
        content["tables"] = {name: digest.content() for name, digest in digests.items()}
    content["digest"] = digest_of(content)
    write_text(folder / NAME, json.dumps(content, indent=2) + "\n")


def sizes_of(built: Built) -> dict[str, int]:
    """How many numbered columns the tables of a run have."""
    atoms, levels = built.prior.branches.shape
    return {"dim": built.prior.dim, "levels": levels, "beliefs": atoms if atoms <= MOST_BELIEFS else 0}


def read_stopped(folder: Place) -> tuple[Experiment, dict[str, Any]]:
    """The experiment and the manifest of a run that was stopped.

    Raises:
        UsageError: if there is none, or it came to its end, or other code played it.
    """

    def refuse(possible: str, advice: str = "") -> UsageError:
        return UsageError("RUN", str(folder), possible, advice)

    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(manifest["experiment"])
        status, code = manifest["status"], manifest["code"]
        numbers = [*manifest["prompts"], manifest["batch"]]
        sound = {"mixing", "weights"} <= set(manifest) and [type(number) for number in numbers] == [int] * 3
        sound &= manifest["digest"] == digest_of(manifest)
    except (OSError, ValueError, TypeError, KeyError, UsageError):
        sound = False
    if not sound:
        raise refuse("the folder of a run, with a manifest.json that can be read")
    if status == "complete":
        raise refuse("a run that was stopped; this one came to its end")
    if code != fingerprint():
        advice = "Resume with that version, or start the run anew"
        raise refuse(f"a run of this code, {fingerprint()}; this one is of {code}", advice)
    return experiment, manifest


def git_revision(source: Path) -> str | None:
    """Revision of the checkout that tracks a source file; None if no checkout does.

    An installed package may lie below a checkout of something else, whose revision says nothing of it.

    Args:
        source: path of the file.
    """
    try:
        for command in (["ls-files", "--error-unmatch", source.name], ["rev-parse", "HEAD"]):
            done = subprocess.run(
                ["git", *command], cwd=source.parent, capture_output=True, text=True, check=True
            )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
