"""What the README says is true: its session, its defaults, its commands, its numbers."""

import doctest
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from analysis.prediction import predict
from runner.cli import app
from runner.experiment import Experiment, parse
from runner.plan import Comparison
from runner.simulation import simulate
from runner.theory import foretell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_session_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (session,) = blocks("python")
    test = doctest.DocTestParser().get_doctest(session, {}, "README", "README.md", 0)
    assert 8 <= len(test.examples) <= 10
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_experiment_file_shows_all_keys_with_their_defaults() -> None:
    experiment, comparison = blocks("toml")
    shown = tomllib.loads(experiment)
    defaults = Experiment().model_dump(mode="json")
    optional = [
        "graph.window",
        "graph.path",
        "policy.step",
        "transformer.steps",
        "transformer.batch",
        "run.batch",
    ]
    for table, key in (name.split(".") for name in optional):
        assert defaults[table].pop(key) is None
        assert re.search(rf"#.*\b{key}: ", experiment), "what has no default is in a comment"
    assert shown == defaults
    parse(Comparison, tomllib.loads(comparison))


def test_every_command_is_listed() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^tokenfield (\w+) +(?:FILE|RUN)", README, re.MULTILINE)) == commands


def test_the_figure_and_the_make_targets_exist() -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).is_file()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (demo|test|lint|bench)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_what_is_said_of_the_optimum_and_of_codes_is_what_is_computed() -> None:
    demo = Experiment().with_values({"channel.noise": 1.0, "channel.bits": 16})
    foretold = foretell(demo, precision=1000)
    assert foretold.greedy_over_optimal is not None
    assert foretold.code_loss is not None
    quiet = foretell(demo.with_values({"channel.noise": 0.0, "run.rounds": 3}), precision=1000)
    assert quiet.greedy_over_optimal is not None
    assert 2.0 < quiet.greedy_over_optimal[3] < 3.0, "over twice the optimal risk"
    within = re.search(r"greedy policy is within (\d+) % of the optimum", README)
    loses = re.search(r"the best code has ([\d.]+) times its risk", README)
    assert within is not None
    assert loses is not None
    assert round(100 * (max(foretold.greedy_over_optimal) - 1)) == int(within[1])
    assert round(foretold.code_loss, 2) == float(loses[1])


@pytest.mark.statistical
def test_a_coarse_quantiser_costs_the_theory_as_much_as_is_said() -> None:
    """The README says 2 % at 2 bits and a clip of 2; measured over the first two rounds, where it is seen."""
    coarse = Experiment().with_values(
        {"channel.noise": 1.0, "channel.bits": 2, "channel.clip": 2.0, "task.prompts": 8000, "run.rounds": 2}
    )
    simulated, predicted = simulate(coarse), predict(coarse, 40_000)
    deviation = simulated.risk[1:] / predicted.risk[1:] - 1
    error = np.hypot(simulated.risk_se / simulated.risk, predicted.risk_se / predicted.risk)[1:]
    assert (np.abs(deviation) <= 0.02 + 4 * error).all()


@pytest.mark.statistical
@pytest.mark.parametrize("tokens", [8, 16, 32])
def test_the_table_of_deviations_is_what_is_measured(tokens: int) -> None:
    """20,000 samples against the README's 100,000: within four standard errors and its last digit."""
    row = re.search(rf"^\| {tokens} \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    assert row is not None
    risks = np.array([float(value) for value in row[1].split(",")])
    deviations = np.array([float(value) / 100 for value in re.findall(r"\+(\d+) %", row[2])])
    experiment = Experiment().with_values(
        {"task.tokens": tokens, "channel.noise": 1.0, "channel.bits": 16, "run.seed": 17}
    )
    exact, mean_field = (predict(experiment, 20_000, form) for form in ("exact", "gaussian"))
    assert (np.abs(exact.risk[1:] - risks) <= 4 * exact.risk_se[1:] * np.sqrt(1.2) + 5e-4).all()
    ratio = mean_field.risk[1:] / exact.risk[1:]
    relative = np.hypot(mean_field.risk_se / mean_field.risk, exact.risk_se / exact.risk)[1:]
    assert (np.abs(ratio - 1 - deviations) <= 4 * ratio * relative * np.sqrt(1.2) + 0.005).all()
