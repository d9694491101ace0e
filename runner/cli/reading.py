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
    animate: Annotated[
        bool, typer.Option("--animate", help="Also an animation of beliefs on the graph (GIF).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw what a stored run shows: risk, levels, messages, information, calibration, beliefs."""
    from runner.cli.console import answering
    from runner.storage.files import check_folder, write_animation, write_figure
    from runner.studies.overview import animation, figures, overview
    from runner.validate import local_place

    with answering(as_json) as answer:
        run = stored(folder)
        if out is None and not isinstance(run.folder, Path):
            raise UsageError("--out", out, "a folder of this machine, for figures of a run on shared storage")
        target = Path(str(run.folder)) / "figures" if out is None else local_place("--out", out)
        found = whole(partial(overview, run, theory), folder)
        drawn, moving = figures(found), animation(found) if animate else []
        if animate and not moving:
            raise UsageError("--animate", True, "a run that kept the beliefs of all tokens, up to 400")
        check_folder(target, "--out")
        paths = [str(write_figure(figure, target, name)) for name, figure in drawn.items()]
        if moving:
            paths.append(str(write_animation(moving, target, "beliefs-on-graph")))
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
    tokens: Annotated[
        str | None, typer.Option("--tokens", metavar="I,J,...", help="Positions that are altered.")
    ] = None,
    edges: Annotated[
        str | None, typer.Option("--edges", metavar="I-J,...", help="Edges that are: who says, who hears.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="Messages in their place: silent, constant, flipped, random, adversarial; or patched, from "
            "the next prompt: messages of edges, workspaces of tokens.",
        ),
    ] = "silent",
    size: Annotated[
        float | None, typer.Option("--size", help="Of what they say instead; by default 1, or the clip.")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option("--rounds", metavar="T,U,...", help="Rounds in which; by default all.")
    ] = None,
    trim: Annotated[
        float, typer.Option("--trim", help="Share that each token leaves out of its means, at either end.")
    ] = 0.0,
    bits: Annotated[
        str | None,
        typer.Option("--bits", metavar="T:B,...", help="Bits of a scalar from a round on, as 3:4."),
    ] = None,
    reader: Annotated[
        int | None,
        typer.Option("--reader", help="Silence each edge within reach of this token, one by one, instead."),
    ] = None,
    prompts: Annotated[
        int, typer.Option("--prompts", min=1, help="How many prompts are played again.")
    ] = 500,
    as_json: JsonOption = False,
) -> None:
    """Play a stored experiment again, altered: tokens, edges, bits; paired differences by reader."""
    import json

    from runner.cli.console import answering, print_edges, print_interventions
    from runner.config.experiment import Experiment
    from runner.studies.intervene import edge_influence
    from runner.studies.intervene import intervene as play

    with answering(as_json) as answer:
        run = stored(folder)
        if run.needs_objects:
            possible = (
                "a run without objects handed in: they are not stored; runner.studies.intervene takes them"
            )
            raise UsageError("RUN", folder, possible)
        places = _numbers("--tokens", tokens, "positions with commas between them, as 0,3")
        pairs = [(one, other) for one, other in _pairs("--edges", edges, "-", "edges, as 0-3,2-1")]
        narrowed = dict(_pairs("--bits", bits, ":", "rounds and their bits, as 3:4,5:2"))
        when = None if rounds is None else _numbers("--rounds", rounds, "rounds, as 2,3")
        experiment = Experiment.model_validate(run.manifest["experiment"])
        few = experiment.with_values(
            {"task.prompts": min(prompts, experiment.task.prompts), "run.trace": "none"}
        )
        few = few.model_copy(update={"trace": type(few.trace)()})
        if reader is not None:
            if places or pairs or narrowed or trim or when:
                raise UsageError("--reader", reader, "by itself: it silences one edge after the other")
            found = edge_influence(few, reader)
            show = partial(print_edges, found, reader)
        else:
            found = play(few, places, kind, size, edges=pairs, rounds=when, trim=trim, bits=narrowed)
            parts = {"tokens": tokens, "edges": edges, "trim": trim or None, "bits": bits, "rounds": rounds}
            words = [f"{name} {value}" for name, value in parts.items() if value is not None]
            show = partial(
                print_interventions,
                found,
                places,
                ", ".join([*words, kind][: None if places or pairs else -1]),
            )
        answer({"interventions": json.loads(found.to_json(orient="records"))}, show)


def _numbers(key: str, given: str | None, possible: str) -> list[int]:
    """Integers with commas between them; none if the option was left out.

    Raises:
        UsageError: if they are something else.
    """
    try:
        return [int(part) for part in given.split(",")] if given is not None else []
    except ValueError:
        raise UsageError(key, given, possible) from None


def _pairs(key: str, given: str | None, between: str, possible: str) -> list[tuple[int, int]]:
    """Pairs of integers with commas between them; none if the option was left out.

    Raises:
        UsageError: if they are something else.
    """
    parts = given.split(",") if given is not None else []
    try:
        return [(int(one), int(other)) for one, other in (part.split(between) for part in parts)]
    except ValueError:
        raise UsageError(key, given, possible) from None


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
