"""The command line: tokenfield run | resume | train | compare | theory | vectors | compile | check."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import agents
from agents.policies import POLICIES
from analysis.resources import available_cores
from runner.built import Built, build
from runner.cli.console import (
    clean_stdout,
    finite,
    print_facts,
    print_findings,
    print_graph,
    print_risk,
    print_run,
    print_table,
    run_answer,
)
from runner.cli.exit import exit_codes
from runner.cli.options import (
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
from runner.progress import Progress
from runner.simulation.simulate import Simulation, simulate
from runner.storage.files import name_of
from runner.storage.writer import check_room

if TYPE_CHECKING:
    from runner.studies.base import Findings

Answer = Callable[[dict[str, Any]], None]

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
        built = build(experiment)
        check_out(out, built.entry.is_trained)
        check_room(experiment, out)
        progress = Progress()
        built = _with_weights(built, out, progress)
        with engine_for(experiment, address, progress) as engine, watching(experiment, progress) as watch:
            result = simulate(built, engine=engine, out=out, on_round=watch)
        _tell_run(result, answer, as_json)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was stopped.")],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Resume a run that was stopped; it ends with the same bits as if it had not been."""
    with clean_stdout(as_json) as answer:
        from runner.simulation.resume import resume as resume_run
        from runner.storage.manifest import read_stopped

        experiment, progress = read_stopped(folder)[0], Progress()
        trained = POLICIES[experiment.policy.kind].is_trained
        learned = _with_weights(build(experiment), folder.parent, progress).learned if trained else None
        with engine_for(experiment, address, progress) as engine, watching(experiment, progress) as watch:
            result = resume_run(folder, engine=engine, learned=learned, on_round=watch)
        _tell_run(result, answer, as_json)


@app.command()
def train(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
) -> None:
    """Train the transformer of an experiment; its depth is run.rounds."""
    with clean_stdout(as_json) as answer:
        built = build(load_file(file, [*(settings or []), "policy.kind=learned"]).experiment())
        check_out(out, True)
        from analysis.statistics import mean_over_prompts
        from runner.training import train as train_model
        from runner.training.evaluation import forward_on_prompts, prompt_risk

        trained = train_model(built, out, Progress())
        prompts = range(built.experiment.task.prompts)
        estimates = forward_on_prompts(trained.model(), built, prompts)
        risk, error = mean_over_prompts(prompt_risk(estimates, built, prompts))
        (steps, loss), where = trained.losses[-1], out / "weights"
        answer(
            {
                "risk": risk.tolist(),
                "risk_se": finite(error.tolist()),
                "loss": loss,
                "steps": steps,
                "seconds": trained.seconds,
                "weights": str(where),
            }
        )
        if not as_json:
            print_risk(risk.tolist(), error.tolist(), "depth read out")
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
        comparison, progress = load_file(file, settings), Progress()
        from runner.studies import Session, study_of

        study = study_of(comparison).prepare(comparison)
        check_out(out, True)
        with engine_for(comparison, address, progress) as engine:
            findings = study(Session(engine, out, available_cores(), progress, name_of(file)))
        _tell(findings, answer, as_json)


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
        built = build(load_file(file, settings).experiment())
        if figure:
            check_out(out, False)
        from analysis.report.tables import by_depth, plus_minus
        from runner.prediction import forecast

        found, paths = forecast(built, precision), []
        if figure:
            from runner.studies.structure import draw_figures

            paths = draw_figures(built.experiment, out, max(2, precision // 10), Progress())
        answer({**found.answer(), "figures": [str(path) for path in paths]})
        if as_json:
            return
        curves = found.curves[~found.curves["source"].str.startswith("channel")]
        title = f"risk / E|w|² ± standard error, {found.facts['law']}"
        cell = lambda part: plus_minus(part.iloc[0])  # noqa: E731
        print_table(by_depth(curves, title, ["source"], cell, across="round"))
        print("\n".join(found.remarks()))
        for path in paths:
            print(f"figure: {path}")


@app.command()
def vectors(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
) -> None:
    """Examine a trained transformer: what each layer knows, asks, and passes on if it is changed."""
    with clean_stdout(as_json) as answer:
        built = build(load_file(file, [*(settings or []), "policy.kind=learned"]).experiment())
        from runner.engines.local import LocalEngine
        from runner.studies import Session
        from runner.studies.function_vectors import prepare

        study = prepare(built)
        check_out(out, True)
        _tell(study(Session(LocalEngine(), out, 1, Progress(), name_of(file))), answer, as_json)


@app.command(name="compile")
def compile_command(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
) -> None:
    """Write an adaptive agent into the weights of a transformer, without training, and run both."""
    with clean_stdout(as_json) as answer:
        built = build(load_file(file, settings).experiment())
        from runner.engines.local import LocalEngine
        from runner.studies import Session
        from runner.studies.compiled import prepare

        study = prepare(built)
        check_out(out, False)
        session = Session(LocalEngine(), out, 1, Progress(), f"compiled-{name_of(file)}")
        _tell(study(session), answer, as_json)


@app.command()
def check(
    file: FileArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    out: OutOption = Path("runs"),
    figure: Annotated[bool, typer.Option("--figure", help="Draw the graph as a picture too.")] = False,
) -> None:
    """Check an experiment, draw its graph and predict its size, without running it."""
    with clean_stdout(as_json) as answer:
        built = build(load_file(file, settings).experiment())
        if figure:
            check_out(out, False)
        from runner.cli.describe import draw_graph, facts_of

        facts = facts_of(built)
        path = draw_graph(built, out) if figure else None
        answer({**facts, **({"figure": str(path)} if path else {})})
        if as_json:
            return
        print_facts(facts)
        print_graph(built.mixing)
        if path:
            print(f"figure: {path}")


def _tell_run(result: Simulation, answer: Answer, as_json: bool) -> None:
    answer(run_answer(result))
    if not as_json:
        print_run(result)


def _tell(findings: "Findings", answer: Answer, as_json: bool) -> None:
    answer(findings.answer())
    if not as_json:
        print_findings(findings)


def _with_weights(built: Built, out: Path, progress: Progress) -> Built:
    """With the weights of a learned policy, trained if none are kept; torch is imported only here."""
    if not built.entry.is_trained:
        return built
    from agents.transformer.export import export
    from runner.training import train as train_model

    return built.with_weights(export(train_model(built, out, progress).model()))
