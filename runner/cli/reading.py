"""Commands that read what was stored: figures, one prompt round by round, a page."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from runner.cli.completion import complete_folder
from runner.cli.options import JsonOption
from runner.errors import UsageError

if TYPE_CHECKING:
    from analysis.traces.reader import Run

Read = TypeVar("Read")

StoredArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Folder of a stored run, or its URI.", autocompletion=complete_folder),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(plot)
    app.command()(replay)
    app.command()(report)
    app.command()(intervene)


def plot(
    folder: StoredArgument,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FOLDER", help="For the figures; by default RUN/figures.")
    ] = None,
    theory: Annotated[bool, typer.Option(help="Predict the risk beside what agents made.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Draw what a stored run shows: risk, levels, messages, information, calibration, beliefs."""
    from runner.cli.console import answering
    from runner.storage.files import check_folder, write_figure
    from runner.studies.overview import figures, overview
    from runner.validate import local_place

    with answering(as_json) as answer:
        run = stored(folder)
        if out is None and not isinstance(run.folder, Path):
            raise UsageError("--out", out, "a folder of this machine, for figures of a run on shared storage")
        target = Path(str(run.folder)) / "figures" if out is None else local_place("--out", out)
        drawn = figures(whole(partial(overview, run, theory), folder))
        check_folder(target, "--out")
        paths = [str(write_figure(figure, target, name)) for name, figure in drawn.items()]
        answer({"figures": paths}, partial(print, *(f"figure: {path}" for path in paths), sep="\n"))


def replay(
    folder: StoredArgument,
    prompt: Annotated[int, typer.Option("--prompt", help="Which prompt.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Step through one prompt: who asked what, what was heard, what is believed after each round."""
    from analysis.report.replay import steps
    from runner.cli.console import answering, print_replay
    from runner.studies.prompt import trace_of

    with answering(as_json) as answer:
        run = stored(folder)
        traced = trace_of(run, prompt)
        found = steps(traced.messages, traced.workspaces, traced.nodes, prompt)
        rounds = [
            {"round": index, "tokens": table.astype(object).where(table.notna(), None).to_dict("records")}
            for index, table in found.items()
        ]
        truth = int(traced.truth["atom"].iloc[0]) if len(traced.truth) else None
        content = {"prompt": prompt, "true_atom": truth, "played_again": traced.again, "rounds": rounds}
        levels = sum(name.startswith("correct_") for name in map(str, traced.workspaces))
        answer(content, partial(print_replay, found, prompt, truth, levels, traced.again))


def report(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Folders of runs, sweeps or studies.", autocompletion=complete_folder
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The page.")] = "report.html",
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page: verdict, numbers, figures, tables, and an explorer of single prompts."""
    from runner.cli.console import answering
    from runner.storage.files import check_folder, write_text
    from runner.studies.report import report as page_of
    from runner.validate import local_place, named_place

    with answering(as_json) as answer:
        target = local_place("--out", out)
        if not target.name or target.is_dir():
            raise UsageError("--out", out, "the path of a file, as report.html")
        places = [named_place("RUN", folder) for folder in folders]
        text = whole(partial(page_of, places), ", ".join(folders))
        check_folder(target.parent, "--out")
        write_text(target, text)
        answer({"report": str(target)}, partial(print, f"report: {target}"))


def intervene(
    folder: StoredArgument,
    tokens: Annotated[str, typer.Option("--tokens", metavar="I,J,...", help="Positions that are corrupted.")],
    kind: Annotated[
        str, typer.Option("--kind", help="silent, constant, flipped or random messages in their place.")
    ] = "silent",
    size: Annotated[float, typer.Option("--size", help="Of what they say instead.")] = 1.0,
    prompts: Annotated[
        int, typer.Option("--prompts", min=1, help="How many prompts are played again.")
    ] = 500,
    as_json: JsonOption = False,
) -> None:
    """Play a stored experiment again with silent or corrupted tokens; paired differences by reader."""
    import json

    from runner.cli.console import answering, print_interventions
    from runner.config.experiment import Experiment
    from runner.studies.intervene import intervene as play

    with answering(as_json) as answer:
        run = stored(folder)
        if run.needs_objects:
            possible = (
                "a run without objects handed in: they are not stored; runner.studies.intervene takes them"
            )
            raise UsageError("RUN", folder, possible)
        try:
            places = [int(part) for part in tokens.split(",")]
        except ValueError:
            raise UsageError("--tokens", tokens, "positions with commas between them, as 0,3") from None
        experiment = Experiment.model_validate(run.manifest["experiment"])
        few = experiment.with_values(
            {"task.prompts": min(prompts, experiment.task.prompts), "run.trace": "none"}
        )
        few = few.model_copy(update={"trace": type(few.trace)()})
        found = play(few, places, kind, size)
        content = {"interventions": json.loads(found.to_json(orient="records"))}
        answer(content, partial(print_interventions, found, places, kind))


def whole(read: Callable[[], Read], folder: str) -> Read:
    """What is read of a run.

    Raises:
        UsageError: if the run did not store it.
    """
    try:
        return read()
    except FileNotFoundError as failure:
        raise UsageError("RUN", folder, f"a run that was traced, to its end ({failure})") from None


def stored(folder: str) -> "Run":
    """The run that a user named.

    Raises:
        UsageError: if there is none.
    """
    from analysis.traces.reader import open_run
    from runner.validate import named_place

    try:
        return open_run(named_place("RUN", folder))
    except FileNotFoundError as failure:
        raise UsageError("RUN", folder, f"the folder of a stored run ({failure})") from None
