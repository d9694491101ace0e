"""The command that plays sweeps."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.cli.completion import complete_folder, complete_sweep
from runner.cli.options import RUNS, AddressOption, JsonOption, RayFolderOption
from runner.errors import RunError

SweepArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SWEEP",
        help="Sweep file (TOML), or the name of a preset: depth, bandwidth, context, locality, crossover, "
        "feedforward, byzantine, finite-size.",
        autocompletion=complete_sweep,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(sweep)


def sweep(
    file: SweepArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Cut down, as its file says under [quick].")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Play what an earlier sweep lacks.")] = False,
    out: Annotated[
        str,
        typer.Option(
            "--out", metavar="FOLDER", help="Where the sweep is kept.", autocompletion=complete_folder
        ),
    ] = str(RUNS),
    engine: Annotated[
        str, typer.Option("--engine", help="ray: tasks on all cores; local: one by one.")
    ] = "ray",
    address: AddressOption = None,
    ray_folder: RayFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play every point of a sweep, keep each as soon as it is done, and write one table."""
    from runner.cli.console import answering, finite, print_sweep
    from runner.config.sweep import read_sweep
    from runner.progress import Progress
    from runner.storage.files import name_of
    from runner.sweeps.sweep import play_sweep

    with answering(as_json) as answer:
        content, base = read_sweep(file)
        name = name_of(str(file))
        if quick:
            content, name = content.at_quick_size(), f"{name}-quick"
        progress = Progress()
        if content.minutes is not None:
            progress.say(f"{name}: about {content.minutes:g} minutes on two cores")
        found = play_sweep(
            content,
            base,
            out,
            name,
            resume=resume,
            engine=engine,  # type: ignore[arg-type]  # checked there
            address=address,
            ray_folder=ray_folder,
            progress=Progress(),
        )
        points: list[dict[str, Any]] = [
            {
                **{key: None if row[key] is None or row[key] != row[key] else row[key] for key in found.keys},
                "risk": finite([float(row["risk"])])[0],
                "risk_se": finite([float(row["risk_se"])])[0],
                **({"theory": finite([float(row["theory"])])[0]} if "theory" in row else {}),
                "seeds": None if row["status"] != "done" else int(row["seeds"]),
                "status": row["status"],
                "error": row["error"] if isinstance(row["error"], str) else None,
            }
            for row in found.last.to_dict("records")
        ]
        concluded = found.verdict is not None
        claims = json.loads(found.claims.to_json(orient="records")) if concluded else []
        told = {"sweep": str(found.folder), "points": points, "verdict": found.verdict, "claims": claims}
        answer(told, partial(print_sweep, found, points))
    failed = sum(point["status"] != "done" for point in points)
    if failed:
        raise RunError(f"{failed} of {len(points)} points failed; --resume tries them again")
