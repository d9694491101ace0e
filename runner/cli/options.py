"""What the commands share: options, reading of files and presets, the engine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from runner.config.experiment import Experiment, assignments, load
from runner.config.studies import Comparison
from runner.engines import Engine
from runner.errors import UsageError, nearest
from runner.progress import Progress
from runner.simulation.simulate import open_engine
from runner.storage.files import check_folder

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="Experiment file (TOML) or preset.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")
]
OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where runs and weights are kept.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; by default RAY_ADDRESS, or a new one.")
]


def load_file(file: str, settings: list[str] | None) -> Comparison:
    """Read a file, or a preset by its name."""
    presets = {
        path.name.removesuffix(".toml"): path for path in files("runner.config").joinpath("presets").iterdir()
    }
    path = Path(file)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        exists = False
    if not exists and file in presets:
        path = Path(str(presets[file]))
    elif not exists:
        raise UsageError(
            "FILE",
            file,
            f"the path of an experiment file, or a preset: {', '.join(sorted(presets))}",
            nearest(file, presets),
        )
    return load(Comparison, path, assignments(settings or []))


def check_out(out: Path, trains: bool) -> None:
    """Refuse a folder that cannot be written, before anything is computed for it.

    Args:
        out: what --out names.
        trains: whether weights will be kept in it.

    Raises:
        UsageError: saying why it cannot be written.
    """
    for folder in (out, out / "weights")[: 1 + trains]:
        check_folder(folder, "--out")


@contextmanager
def engine_for(experiment: Experiment, address: str | None, progress: Progress) -> Iterator[Engine]:
    """The engine that the experiment names, closed at the end."""
    engine = open_engine(experiment, address, progress)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def watching(experiment: Experiment, progress: Progress) -> Iterator[Callable[[range, int], None]]:
    """Shows how many rounds of how many prompts were played."""
    rounds = experiment.run.rounds + 1
    with progress.task("rounds", rounds * experiment.task.prompts) as advance:
        done = 0

        def watch(prompts: range, round: int) -> None:
            nonlocal done
            done += len(prompts)
            advance(done, f"round {round}")

        yield watch
