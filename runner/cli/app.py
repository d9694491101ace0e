"""The command line: tokenfield run | resume | train | compare | theory | vectors | compile | check | schema,
and the commands of `runner.cli.reading` and `runner.cli.sweeping`.

A shell that completes a word loads this module: what a command needs it loads when it is called.
"""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import agents
from runner.cli import reading, sweeping
from runner.cli.exit import exit_codes
from runner.cli.options import (
    RUNS,
    AddressOption,
    Call,
    EngineOption,
    JsonOption,
    RayFolderOption,
    RunArgument,
    on_a_file,
    playing,
)

if TYPE_CHECKING:
    from runner.built import Built
    from runner.config.experiment import Experiment
    from runner.progress import Progress


class _Commands(TyperGroup):
    """The commands. Where Typer alone meets a KeyboardInterrupt, it ends without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with exit_codes():
            return super().invoke(ctx)


app = typer.Typer(
    name="tokenfield",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A deep transformer as token positions that infer a latent variable together by bounded messages.",
)


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
@on_a_file
def run(call: Call, address: AddressOption = None, ray_folder: RayFolderOption = None) -> None:
    """Simulate one experiment and store its traces."""
    from runner.built import build
    from runner.cli.console import print_run, run_answer
    from runner.progress import Progress
    from runner.simulation.simulate import simulate
    from runner.storage.files import check_folder
    from runner.storage.writer import check_room

    experiment = call.load().experiment()
    built = build(experiment)
    out, weights = call.shared_out, call.weights_out
    check_room(experiment, out, "--out")
    if built.entry.is_trained:
        check_folder(weights / "weights", "--out")
    _check_engine(experiment, address, ray_folder)
    progress = Progress()
    built = _with_weights(built, weights, progress)
    with playing(experiment, address, progress, ray_folder) as (engine, watch):
        result = simulate(built, engine=engine, out=out, on_round=watch)
    call.answer(run_answer(result), partial(print_run, result))


@app.command()
def resume(
    folder: RunArgument,
    as_json: JsonOption = False,
    engine_name: EngineOption = None,
    address: AddressOption = None,
    ray_folder: RayFolderOption = None,
) -> None:
    """Resume a run that was stopped, on any engine; it ends with the same bits as if it had not been."""
    from agents.policies import POLICIES
    from runner.built import build
    from runner.cli.console import answering, print_run, run_answer
    from runner.progress import Progress
    from runner.simulation.resume import resume as resume_run
    from runner.storage.manifest import read_stopped
    from runner.validate import named_place

    with answering(as_json) as answer:
        where = named_place("RUN", folder)
        weights = where.parent if isinstance(where, Path) else RUNS
        experiment, progress = read_stopped(where)[0], Progress()
        if engine_name is not None or address is not None:
            experiment = experiment.with_values({"run.engine": "ray" if engine_name is None else engine_name})
        _check_engine(experiment, address, ray_folder)
        trained = POLICIES[experiment.policy.kind].is_trained
        learned = _with_weights(build(experiment), weights, progress).learned if trained else None
        with playing(experiment, address, progress, ray_folder) as (engine, watch):
            result = resume_run(where, engine=engine, learned=learned, on_round=watch)
        answer(run_answer(result), partial(print_run, result))


@app.command()
@on_a_file
def train(call: Call) -> None:
    """Train the transformer of an experiment; its depth is run.rounds."""
    from runner.built import build

    built = build(call.load("policy.kind=learned").experiment())
    call.check_out(trains=True)
    from analysis.statistics import mean_over_prompts
    from runner.cli.console import finite, print_trained
    from runner.progress import Progress
    from runner.training import train as train_model
    from runner.training.evaluation import forward_on_prompts, prompt_risk

    trained = train_model(built, call.out, Progress())
    prompts = range(built.experiment.task.prompts)
    estimates = forward_on_prompts(trained.model(), built, prompts)
    risk, error = mean_over_prompts(prompt_risk(estimates, built, prompts))
    steps, loss = trained.losses[-1]
    content = {
        "risk": risk.tolist(),
        "risk_se": finite(error.tolist()),
        "loss": loss,
        "steps": steps,
        "seconds": trained.seconds,
        "weights": str(call.out / "weights"),
    }
    call.answer(content, partial(print_trained, content, error.tolist()))


@app.command()
@on_a_file
def compare(call: Call, address: AddressOption = None, ray_folder: RayFolderOption = None) -> None:
    """Put theory, agents and transformers side by side: policies, graphs, or what a transformer lacks."""
    from analysis.resources import available_cores
    from runner.cli.console import print_findings
    from runner.progress import Progress
    from runner.simulation.simulate import open_engine
    from runner.storage.files import name_of
    from runner.studies import Session, study_of
    from runner.studies.report import write_report

    comparison, progress = call.load(), Progress()
    study = study_of(comparison).prepare(comparison)
    call.check_out(trains=True)
    with closing(open_engine(comparison, address, progress, ray_folder)) as engine:
        findings = study(Session(engine, call.out, available_cores(), progress, name_of(call.file)))
    page = write_report(findings.folder)
    call.answer({**findings.answer(), "report": str(page)}, partial(print_findings, findings, page))


@app.command()
@on_a_file
def theory(
    call: Call,
    precision: Annotated[
        int, typer.Option("--precision", min=2, max=10**8, help="Monte-Carlo samples of state evolution.")
    ] = 20_000,
    figure: Annotated[bool, typer.Option("--figure", help="Draw how depth follows from structure.")] = False,
) -> None:
    """Predict risk, limits and optimum without running an agent."""
    from runner.built import build
    from runner.cli.console import print_forecast

    built = build(call.load().experiment())
    if figure:
        call.check_out()
    from runner.prediction import forecast

    found, paths = forecast(built, precision), []
    if figure:
        from runner.progress import Progress
        from runner.studies.structure import draw_figures

        paths = draw_figures(built.experiment, call.out, max(2, precision // 10), Progress())
    content = {**found.answer(), "figures": [str(path) for path in paths]}
    call.answer(content, partial(print_forecast, found, paths))


@app.command()
@on_a_file
def vectors(call: Call) -> None:
    """Examine a trained transformer: what each layer knows, asks, and passes on if it is changed."""
    from runner.built import build

    built = build(call.load("policy.kind=learned").experiment())
    from runner.cli.console import print_findings
    from runner.engines.local import LocalEngine
    from runner.progress import Progress
    from runner.storage.files import name_of
    from runner.studies import Session
    from runner.studies.function_vectors import prepare

    study = prepare(built)
    call.check_out(trains=True)
    findings = study(Session(LocalEngine(), call.out, 1, Progress(), name_of(call.file)))
    call.answer(findings.answer(), partial(print_findings, findings))


@app.command(name="compile")
@on_a_file
def compile_command(call: Call) -> None:
    """Write an adaptive agent into the weights of a transformer, without training, and run both."""
    from runner.built import build

    built = build(call.load().experiment())
    from runner.cli.console import print_findings
    from runner.engines.local import LocalEngine
    from runner.progress import Progress
    from runner.storage.files import name_of
    from runner.studies import Session
    from runner.studies.compiled import prepare

    study = prepare(built)
    call.check_out()
    findings = study(Session(LocalEngine(), call.out, 1, Progress(), f"compiled-{name_of(call.file)}"))
    call.answer(findings.answer(), partial(print_findings, findings))


@app.command()
@on_a_file
def check(
    call: Call,
    figure: Annotated[bool, typer.Option("--figure", help="Draw the graph as a picture too.")] = False,
) -> None:
    """Check an experiment, draw its graph and predict its size, without running it."""
    from runner.built import build
    from runner.validate import validate_traced

    built = build(call.load().experiment())
    validate_traced(built.experiment, range(built.experiment.task.prompts))
    if figure:
        call.check_out()
    from runner.cli.console import print_check
    from runner.cli.describe import draw_graph, facts_of

    facts = facts_of(built)
    drawn = {"figure": str(draw_graph(built, call.out))} if figure else {}
    call.answer({**facts, **drawn}, partial(print_check, facts, built.mixing, drawn.get("figure")))


@app.command()
def schema() -> None:
    """Print the JSON schema of experiment files, by which editors complete and check them."""
    import json

    from runner.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))


reading.add_to(app)
sweeping.add_to(app)


def _check_engine(experiment: "Experiment", address: str | None, folder: str | None) -> None:
    """Refuse a cluster that cannot be joined, or a folder of Ray that cannot be written, before training."""
    from runner.engines import EngineOptions, check_local, prepare_ray

    checks = {"ray": prepare_ray, "local": check_local}
    if experiment.run.engine in checks:
        checks[experiment.run.engine](EngineOptions(address=address, folder=folder))


def _with_weights(built: "Built", out: Path, progress: "Progress") -> "Built":
    """With the weights of a learned policy, trained if none are kept; torch is imported only here."""
    if not built.entry.is_trained:
        return built
    from agents.transformer.export import export
    from runner.training import train as train_model

    return built.with_weights(export(train_model(built, out, progress).model()))
