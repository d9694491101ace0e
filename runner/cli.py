"""The command line: tokenfield run | resume | train | compare | theory | vectors | check."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import agents
from runner.assembly import check, mixing_for
from runner.console import (
    clean_stdout,
    finite,
    print_curves,
    print_facts,
    print_graph,
    print_risk,
    print_run,
    print_table,
    run_answer,
)
from runner.display import Display
from runner.exits import exit_codes
from runner.experiment import Experiment
from runner.facts import facts_of
from runner.folders import name_of
from runner.options import (
    AddressOption,
    FileArgument,
    JsonOption,
    OutOption,
    SetOption,
    check_out,
    engine_for,
    load_file,
    watching,
)
from runner.record import check_room
from runner.risk import mean_over_prompts
from runner.simulation import simulate

app = typer.Typer(
    name="tokenfield",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A deep transformer as token positions that infer a latent variable together by bounded messages.",
)


def main() -> None:
    """Run the command line; a user's mistake ends with exit code 2 and a message, never a traceback."""
    with exit_codes():
        app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tokenfield {agents.__tokenfield__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
    address: AddressOption = None,
) -> None:
    """Simulate one experiment and store its traces."""
    with clean_stdout(as_json) as answer:
        experiment = load_file(file, settings).experiment()
        check(experiment)
        check_out(out, experiment.policy.kind == "learned")
        check_room(experiment, out)
        display = Display()
        learned = _learned(experiment, out, display) if experiment.policy.kind == "learned" else None
        with engine_for(experiment, address, display) as engine, watching(experiment, display) as watch:
            result = simulate(experiment, engine=engine, out=out, learned=learned, on_round=watch)
        if as_json:
            answer(run_answer(result))
        else:
            print_run(result)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was stopped.")],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Go on with a run that was stopped; it ends with the same bits as if it had not been."""
    with clean_stdout(as_json) as answer:
        from runner.continuation import resume as go_on
        from runner.continuation import stopped_experiment

        experiment, display = stopped_experiment(folder), Display()
        trained = experiment.policy.kind == "learned"
        learned = _learned(experiment, folder.parent, display) if trained else None
        with engine_for(experiment, address, display) as engine, watching(experiment, display) as watch:
            result = go_on(folder, engine=engine, learned=learned, on_round=watch)
        if as_json:
            answer(run_answer(result))
        else:
            print_run(result)


@app.command()
def train(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
) -> None:
    """Train the transformer of an experiment; its depth is run.rounds."""
    with clean_stdout(as_json) as answer:
        experiment = load_file(file, [*(settings or []), "policy.kind=learned"]).experiment()
        check(experiment)
        check_out(out, True)
        from runner.evaluation import forward_on_prompts, prompt_risk
        from runner.models import trained_model

        trained = trained_model(experiment, out / "weights", Display())
        prompts = range(experiment.task.prompts)
        estimates = forward_on_prompts(trained.model(), experiment, prompts)
        risk, error = mean_over_prompts(prompt_risk(estimates, experiment, prompts))
        summary = {
            "risk": risk.tolist(),
            "risk_se": finite(error.tolist()),
            "loss": trained.losses[-1][1],
            "steps": trained.losses[-1][0],
            "seconds": trained.seconds,
            "weights": str(out / "weights"),
        }
        if as_json:
            answer(summary)
        else:
            print_risk(risk.tolist(), error.tolist(), "depth read out")
            steps, where = trained.losses[-1][0], out / "weights"
            print(f"trained {steps:,} steps in {trained.seconds:.1f} s; weights are kept in {where}")


@app.command()
def compare(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
    address: AddressOption = None,
) -> None:
    """Put theory, agents and transformers side by side: policies, graphs, or what a transformer lacks."""
    with clean_stdout(as_json) as answer:
        comparison, display = load_file(file, settings), Display()
        from runner.studies import study_of

        study = study_of(comparison)
        study.check(comparison)
        check_out(out, True)
        with engine_for(comparison, address, display) as engine:
            found = study.run(comparison, engine, out, os.cpu_count() or 1, display, name_of(file))
        if as_json:
            answer(found.answer())
        else:
            found.show()


@app.command()
def theory(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
    precision: Annotated[
        int, typer.Option("--precision", min=2, max=10**8, help="Monte-Carlo samples of state evolution.")
    ] = 20_000,
    figure: Annotated[bool, typer.Option("--figure", help="Draw how depth follows from structure.")] = False,
) -> None:
    """Predict risk, limits and optimum without running an agent."""
    with clean_stdout(as_json) as answer:
        experiment = load_file(file, settings).experiment()
        check(experiment)
        if figure:
            check_out(out, False)
        from runner.theory import foretell, remarks, rows_of

        foretold = foretell(experiment, precision)
        paths = []
        if figure:
            from runner.theory_figures import draw_figures

            paths = draw_figures(experiment, out, max(2, precision // 10), Display())
        if as_json:
            answer({**foretold.answer(), "figures": [str(path) for path in paths]})
            return
        print_curves(rows_of(foretold))
        print("\n".join(remarks(foretold)))
        for path in paths:
            print(f"figure: {path}")


@app.command()
def vectors(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
) -> None:
    """Take a trained transformer apart: what each layer knows, asks, and passes on if it is changed."""
    with clean_stdout(as_json) as answer:
        experiment = load_file(file, [*(settings or []), "policy.kind=learned"]).experiment()
        check(experiment)
        from runner.vectors import check_vectors, study

        check_vectors(experiment)
        check_out(out, True)
        found = study(experiment, out, Display(), name_of(file))
        if as_json:
            answer(found.answer())
            return
        for title, table in found.tables():
            print_table(title, table)
        print("".join(f"figure: {path}\n" for path in found.figures) + f"tables: {found.folder}\n")
        print(found.sentence)


@app.command(name="check")
def check_command(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
    figure: Annotated[bool, typer.Option("--figure", help="Draw the graph as a picture too.")] = False,
) -> None:
    """Check an experiment, draw its graph and predict its size, without running it."""
    with clean_stdout(as_json) as answer:
        experiment = load_file(file, settings).experiment()
        check(experiment)
        if figure:
            check_out(out, False)
        facts = facts_of(experiment)
        path = None
        if figure:
            from runner.drawing import draw_graph

            path = draw_graph(experiment, out)
        if as_json:
            answer({**facts, **({"figure": str(path)} if path else {})})
            return
        print_facts(facts)
        print_graph(mixing_for(experiment))
        if path:
            print(f"figure: {path}")


def _learned(experiment: Experiment, out: Path, display: Display) -> Any:
    """Weights for a learned policy, trained if the cache has none; torch is imported only here."""
    from agents.transformer.export import export
    from runner.models import trained_model

    return export(trained_model(experiment, out / "weights", display).model())
