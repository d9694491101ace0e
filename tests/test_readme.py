"""What the README says is true: its session, its defaults, its commands, its numbers."""

import doctest
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from agents.policies import POLICIES
from agents.prior import PRIORS
from analysis.theory.predict import predict_belief
from analysis.traces.schema import SCHEMAS, schema_of
from runner.built import build
from runner.cli.app import app
from runner.config.experiment import Experiment, parse
from runner.config.studies import Comparison
from runner.config.sweep import SweepFile, points_of
from runner.engines import ENGINES
from runner.prediction import forecast
from runner.simulation.simulate import simulate
from topology.families import FAMILIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


READMES = {path.parent.name: path for path in sorted(ROOT.glob("*/README.md"))} | {"": ROOT / "README.md"}
RUNNER = READMES["runner"].read_text(encoding="utf-8")
ANALYSIS = READMES["analysis"].read_text(encoding="utf-8")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", READMES)
def test_the_python_sessions_print_what_they_show(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sessions of one page follow each other; what they register is forgotten at its end."""
    monkeypatch.chdir(tmp_path)
    session = "\n".join(blocks("python", READMES[name].read_text(encoding="utf-8")))
    kept = [(registry, dict(registry)) for registry in (PRIORS, POLICIES, FAMILIES, ENGINES)]
    test = doctest.DocTestParser().get_doctest(session, {}, f"{name}/README", "README.md", 0)
    try:
        assert doctest.DocTestRunner().run(test).failed == 0
    finally:
        for registry, before in kept:
            registry.clear()
            registry.update(before)


def test_the_columns_of_the_traces_are_those_of_the_files() -> None:
    """Each with its type, in the order of the files; numbered ones in one row."""
    rows = re.findall(r"^\| (\w+) \| (\S+)(?: to \S+)? \| (\w+) \|", ANALYSIS, re.MULTILINE)
    sizes = {"dim": 1, "levels": 1, "beliefs": 1}
    files = [(name, field.name, str(field.type)) for name in SCHEMAS for field in schema_of(name, sizes)]
    assert sorted(rows) == sorted(files)


def test_the_first_page_is_short() -> None:
    assert len(README.splitlines()) <= 200
    session = blocks("python", README)[0]
    assert 8 <= len(doctest.DocTestParser().get_examples(session)) <= 10


def test_the_experiment_file_shows_all_keys_with_their_defaults() -> None:
    experiment, comparison, swept = blocks("toml", RUNNER)
    content = parse(SweepFile, tomllib.loads(swept))
    assert len(points_of(content, Experiment())) == 12
    named = set(tomllib.loads(swept))
    assert named | {"retries"} == set(SweepFile.model_fields)
    shown = tomllib.loads(experiment)
    defaults = Experiment().model_dump(mode="json")
    optional = [
        "graph.window",
        "graph.path",
        "policy.step",
        "transformer.steps",
        "transformer.batch",
        "run.batch",
        *(f"trace.{key}" for key in ("rounds", "positions", "prompts", "columns")),
    ]
    for table, key in (name.split(".") for name in optional):
        assert defaults[table].pop(key) is None
        assert re.search(rf"#.*\b{key}: ", experiment), "what has no default is in a comment"
    assert shown == defaults
    parse(Comparison, tomllib.loads(comparison))


def test_every_command_is_listed() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"`tokenfield (\w+)(?: FILE| RUN)?` \|", README)) == commands
    assert set(re.findall(r"^tokenfield (\w+) +(?:FILE|RUN|#)", RUNNER, re.MULTILINE)) == commands


def test_what_the_pages_point_to_exists() -> None:
    for path in [*READMES.values(), ROOT / "CONTRIBUTING.md"]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (path.parent / target).exists(), (path, target)
        for target in re.findall(r"`((?:agents|topology|analysis|runner|tests)/[\w/.]+)`", text):
            assert (ROOT / target).exists(), (path, target)
        makefile = (ROOT / "Makefile").read_text()
        for target in set(re.findall(r"make (demo|test|lint|bench|setup)", text)):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_what_is_said_of_the_optimum_and_of_codes_is_what_is_computed() -> None:
    demo = Experiment().with_values({"channel.noise": 1.0, "channel.bits": 16})
    facts = forecast(demo, 1000).facts
    quiet = forecast(demo.with_values({"channel.noise": 0.0, "run.rounds": 3}), 1000).facts
    assert 2.0 < quiet["greedy_over_optimal"][3] < 3.0, "over twice the optimal risk"
    within = re.search(r"greedy policy is within (\d+) % of the optimum", ANALYSIS)
    loses = re.search(r"the best code has ([\d.]+) times its risk", ANALYSIS)
    assert within is not None
    assert loses is not None
    assert round(100 * (max(facts["greedy_over_optimal"]) - 1)) == int(within[1])
    assert round(facts["code_loss"], 2) == float(loses[1])


@pytest.mark.statistical
def test_a_coarse_quantiser_costs_the_theory_as_much_as_is_said() -> None:
    """The README says 2 % at 2 bits and a clip of 2; measured over the first two rounds, where it is seen."""
    coarse = Experiment().with_values(
        {"channel.noise": 1.0, "channel.bits": 2, "channel.clip": 2.0, "task.prompts": 8000, "run.rounds": 2}
    )
    simulated, predicted = simulate(coarse), predict_belief(build(coarse).scenario, 40_000)
    deviation = simulated.risk[1:] / predicted.risk[1:] - 1
    error = np.hypot(simulated.risk_se / simulated.risk, predicted.risk_se / predicted.risk)[1:]
    assert (np.abs(deviation) <= 0.02 + 4 * error).all()


@pytest.mark.statistical
@pytest.mark.parametrize("tokens", [8, 16, 32])
def test_the_table_of_deviations_is_what_is_measured(tokens: int) -> None:
    """20,000 samples against the README's 100,000: within four standard errors and its last digit."""
    row = re.search(rf"^\| {tokens} \| ([^|]+) \| ([^|]+) \|$", ANALYSIS, re.MULTILINE)
    assert row is not None
    risks = np.array([float(value) for value in row[1].split(",")])
    deviations = np.array([float(value) / 100 for value in re.findall(r"\+(\d+) %", row[2])])
    experiment = Experiment().with_values(
        {"task.tokens": tokens, "channel.noise": 1.0, "channel.bits": 16, "run.seed": 17}
    )
    exact, mean_field = (
        predict_belief(build(experiment).scenario, 20_000, form) for form in ("exact", "gaussian")
    )
    assert (np.abs(exact.risk[1:] - risks) <= 4 * exact.risk_se[1:] * np.sqrt(1.2) + 5e-4).all()
    ratio = mean_field.risk[1:] / exact.risk[1:]
    relative = np.hypot(mean_field.risk_se / mean_field.risk, exact.risk_se / exact.risk)[1:]
    assert (np.abs(ratio - 1 - deviations) <= 4 * ratio * relative * np.sqrt(1.2) + 0.005).all()
