"""What the commands share: options, reading of files and presets, where things are put."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from runner.cli.completion import complete_file, complete_folder, complete_setting
from runner.config.files import presets
from runner.errors import UsageError, nearest

if TYPE_CHECKING:  # a shell that completes a word waits for this module
    from analysis.traces.location import Place
    from runner.cli.console import Answer
    from runner.config.experiment import Experiment
    from runner.config.studies import Comparison
    from runner.engines import Engine
    from runner.progress import Progress

RUNS = Path("runs")

FileArgument = Annotated[
    str,
    typer.Argument(metavar="FILE", help="Experiment file (TOML) or preset.", autocompletion=complete_file),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Folder of a run that was stopped, or its URI.", autocompletion=complete_folder
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key; may be repeated.",
        autocompletion=complete_setting,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")
]
OutOption = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="Where runs and weights are kept; of a run also a URI on shared storage, as s3://bucket/runs.",
        autocompletion=complete_folder,
    ),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; by default RAY_ADDRESS, or a new one.")
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="Where the rounds are played; by default as the run began.")
]

RayFolderOption = Annotated[
    str | None,
    typer.Option(
        "--ray-folder",
        metavar="FOLDER",
        help="Where a new Ray cluster keeps its sockets and logs; by default RAY_TMPDIR, or /tmp.",
        autocompletion=complete_folder,
    ),
]


class Call(NamedTuple):
    """What a command on an experiment file is called with.

    Attributes:
        file: path of an experiment file, or name of a preset.
        settings: overrides, key=value.
        named_out: folder where runs and weights are kept.
        answer: gives what the command found.
    """

    file: str
    settings: list[str]
    named_out: str
    answer: "Answer"

    def load(self, *more: str) -> "Comparison":
        """Read the file, or the preset of that name, with the overrides and some more."""
        from runner.config.experiment import assignments, load
        from runner.config.studies import Comparison

        path, known = Path(self.file), presets()
        try:
            exists = path.exists()
        except (OSError, ValueError):  # a name that no file can have
            exists = False
        if not exists and self.file in known:
            path = known[self.file]
        elif not exists:
            possible = f"the path of an experiment file, or a preset: {', '.join(sorted(known))}"
            raise UsageError("FILE", self.file, possible, nearest(self.file, known))
        return load(Comparison, path, assignments([*self.settings, *more]))

    @property
    def out(self) -> Path:
        """The folder where runs and weights are kept.

        Raises:
            UsageError: if it is not on this machine.
        """
        found = self.shared_out
        if isinstance(found, Path):
            return found
        raise UsageError(
            "--out", str(found), "a folder of this machine; `run` alone stores on shared storage"
        )

    @property
    def shared_out(self) -> "Place":
        """The folder where runs are kept, which may be on shared storage.

        Raises:
            UsageError: if a URI names none.
        """
        from runner.validate import named_place

        return named_place("--out", self.named_out)

    @property
    def weights_out(self) -> Path:
        """The folder below which weights are kept: the default one, where runs are on shared storage."""
        found = self.shared_out
        return found if isinstance(found, Path) else RUNS

    def check_out(self, trains: bool = False) -> None:
        """Refuse a folder that cannot be written, before anything is computed for it.

        Args:
            trains: whether weights will be kept in it.

        Raises:
            UsageError: saying why it cannot be written.
        """
        from runner.storage.files import check_folder

        check_folder(self.out, "--out")
        if trains:
            check_folder(self.out / "weights", "--out")


def on_a_file(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options that all commands on an experiment file have, before its own."""

    def called(
        file: FileArgument,
        settings: SetOption = None,
        as_json: JsonOption = False,
        out: OutOption = str(RUNS),
        **own: Any,
    ) -> None:
        from runner.cli.console import answering

        with answering(as_json) as answer:
            command(Call(file, settings or [], out, answer), **own)

    shared, own = (list(signature(part).parameters.values()) for part in (called, command))
    found = wraps(command)(called)
    vars(found)["__signature__"] = Signature([*shared[:-1], *own[1:]])  # which Typer reads
    return found


@contextmanager
def playing(
    experiment: "Experiment", address: str | None, progress: "Progress", folder: str | None
) -> Iterator[tuple["Engine", Callable[[range, int], None]]]:
    """The engine that an experiment names, and what shows how many rounds of how many prompts it played."""
    from runner.simulation.simulate import open_engine

    rounds = experiment.run.rounds + 1
    with (
        closing(open_engine(experiment, address, progress, folder)) as engine,
        progress.task("rounds", rounds * experiment.task.prompts) as advance,
    ):
        done = 0

        def watch(prompts: range, round: int) -> None:
            nonlocal done
            done += len(prompts)
            advance(done, f"round {round}")

        yield engine, watch
