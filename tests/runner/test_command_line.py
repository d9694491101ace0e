"""The command line: what it prints, what it refuses, and with which exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

from runner.built import build
from runner.config.experiment import Experiment
from tests.commands import run

ROOT = Path(__file__).parents[2]
FAST = ["--set", "task.prompts=50", "--set", "run.engine=local"]

MISTAKES = [
    (["--set", "channel.bit=3"], ["channel.bit", "Did you mean bits?"]),
    (["--set", "chanel.bits=3"], ["chanel", "Did you mean channel?"]),
    (["--set", "prior.dim=6"], ["prior.dim = 6", "7 or more", "orthonormal"]),
    (["--set", "channel.bits=0"], ["channel.bits = 0", "1 to 48"]),
    (["--set", "run.rounds=-1"], ["run.rounds = -1", "from 0 to 64"]),
    (["--set", "channel.noise=nan"], ["channel.noise = nan", "a finite number"]),
    (["--set", "task.label_noise=inf"], ["task.label_noise = inf", "a finite number"]),
    (["--set", "policy.kind=clever"], ["policy.kind = 'clever'", '"adaptive" | "static" | "gossip"']),
    (["--set", "task.tokens=1000000000"], ["task.tokens = 1000000000", "1 to 1048576"]),
    (["--set", "task.tokens=1048576", "--set", "graph.kind=causal"], ["task.tokens = 1048576", "GiB"]),
    (
        ["--set", "task.prompts=2147483648", "--set", "run.rounds=64"],
        ["task.prompts = 2147483648", "up to about"],
    ),
    (["--set", "task.tokens=1.5"], ["task.tokens = 1.5", "an integer"]),
    (["--set", 'task.tokens="32"'], ["task.tokens = '32'", "an integer"]),
    (["--set", "policy.control_variate=1"], ["policy.control_variate = 1", "true or false"]),
    (["--set", "channel.channels=8"], ["channel.channels = 8", "1 to 7"]),
    (["--set", "prior.levels=12", "--set", "prior.branching=4"], ["prior.levels = 12", "4096"]),
    (["--set", "rounds"], ["--set = 'rounds'", "key=value"]),
    (["--set", "task.tokens.x=1"], ["task.tokens.x = 1", "not a table"]),
    (["--set", "compare.policies=['clever']"], ["compare.policies", "a list of"]),
]


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(("settings", "words"), MISTAKES, ids=lambda value: str(value[-1]))
def test_a_mistake_ends_with_code_2_and_names_the_key(
    command: str,
    settings: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([command, "demo", *settings, "--json"], monkeypatch) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == [], "nothing was started"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["FILE", "preset: ablations, causal, demo"]),
        ("[task\n", ["valid TOML"]),
        ("[task]\ntokens = 0\nprompts = -3\n", ["task.tokens = 0", "task.prompts = -3"]),
        ("task = 3\n", ["task = 3", "a table with the keys tokens"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "check", "train", "compare"])
def test_a_bad_file_ends_with_code_2(
    command: str,
    content: str | None,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "experiment.toml"
    if content is not None:
        file.write_text(content)
    assert run([command, str(file)], monkeypatch) == 2
    _, err = capfd.readouterr()
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.mark.ray
def test_a_mistake_is_told_before_ray_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from runner.cli import main\n"
        "sys.argv = ['tokenfield', 'run', 'demo', '--set', 'channel.bits=0']\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code, 'ray' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["2", "False", "False"]


def test_a_cluster_that_does_not_answer_is_a_mistake(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "run", "demo", "--address", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "--address = '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_answers_one_json_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "run", "demo", *FAST, "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert len(answer["risk"]) == len(answer["risk_se"]) == 5
    assert answer["bits_per_message"] == 19
    assert answer["messages"] == 32 * 4 * 50
    assert answer["clipped"] >= 0
    assert (Path(answer["run"]) / "manifest.json").is_file()


def test_a_single_prompt_has_a_risk_and_no_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["run", "demo", *FAST, "--set", "task.prompts=1", "--json", "--out", str(tmp_path)]
    assert run(arguments, monkeypatch) == 0
    assert json.loads(capfd.readouterr().out)["risk_se"] == [None] * 5


def test_no_round_and_one_token_are_possible(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = ["--set", "run.rounds=0", "--set", "task.tokens=1"]
    assert run(["run", "demo", *FAST, *settings, "--json", "--out", str(tmp_path)], monkeypatch) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["messages"] == 0
    assert len(answer["risk"]) == 1


def test_check_predicts_what_run_measures(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["check", "demo", *FAST, "--json"], monkeypatch) == 0
    facts = json.loads(capfd.readouterr().out)
    assert run(["run", "demo", *FAST, "--json", "--out", str(tmp_path)], monkeypatch) == 0
    answer = json.loads(capfd.readouterr().out)
    assert facts["messages"] == answer["messages"]
    assert facts["bits_per_message"] == answer["bits_per_message"]


NOT_COMPUTED = "not computed above N = 2,000"
INFINITE = "infinite: some token never hears some other"


@pytest.mark.parametrize(
    ("settings", "known", "reasons"),
    [
        (
            "task.tokens=100000",
            {"degree": 99_999.0, "diameter": 1, "spectral_gap": 1.0, "mixing_time": 0.0}
            | {"effective_tokens_after_rounds": 100_000.0},
            {},
        ),
        (
            "task.tokens=30000 graph.kind=star policy.belief=joint",
            {"diameter": 2, "spectral_gap": 0.5, "mixing_time": 1.443},
            {"effective_tokens_after_rounds": NOT_COMPUTED},
        ),
        (
            "task.tokens=4000 graph.kind=ring graph.mixing=metropolis policy.belief=joint",
            {"degree": 4.0, "diameter": 1000},
            {"effective_tokens_after_rounds": NOT_COMPUTED},
        ),
        (
            "task.tokens=2500 graph.kind=path policy.belief=joint",
            {"degree": 1.999},
            dict.fromkeys(
                ("effective_tokens_after_rounds", "diameter", "spectral_gap", "mixing_time"), NOT_COMPUTED
            ),
        ),
        ("task.tokens=20 graph.kind=causal", {"spectral_gap": 0.5}, {"diameter": INFINITE}),
        ("task.tokens=1", {"diameter": 0, "degree": 0.0}, {}),
    ],
)
def test_check_gives_what_is_known_of_a_graph_and_says_what_is_not(
    settings: str,
    known: dict[str, float],
    reasons: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ["check", "demo", *(word for setting in settings.split() for word in ("--set", setting))]
    assert run([*words, "--json"], monkeypatch) == 0
    facts = json.loads(capfd.readouterr().out)
    assert {key: facts[key] for key in known} == known
    assert facts["not_given"] == reasons
    assert all(facts[key] is None for key in reasons)
    assert run(words, monkeypatch) == 0
    printed = capfd.readouterr().out
    assert ("infinite" in printed, "not computed" in printed) == (
        INFINITE in reasons.values(),
        NOT_COMPUTED in reasons.values(),
    )


def test_facts_of_a_graph_that_was_handed_in_are_its_own() -> None:
    from runner.cli.describe import facts_of

    two = nx.disjoint_union(nx.cycle_graph(8), nx.cycle_graph(8))
    small = Experiment().with_values({"task.tokens": 16, "task.prompts": 10})
    facts = facts_of(build(small, nx.cycle_graph(16)))
    assert (facts["graph"], facts["diameter"], facts["degree"]) == ("handed in", 8, 2.0)
    apart = facts_of(build(small, two))
    assert (apart["diameter"], apart["mixing_time"], apart["spectral_gap"]) == (None, None, 0.0)
    assert "infinite" in apart["not_given"]["diameter"] and "infinite" in apart["not_given"]["mixing_time"]


def test_check_says_what_theory_settles_for_the_agents(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Order, joint answers or weights, disagreement: None where there is nothing to settle."""

    def facts(*settings: str) -> list[object]:
        words = [word for setting in settings for word in ("--set", setting)]
        assert run(["check", "demo", *FAST, *words, "--json"], monkeypatch) == 0
        found = json.loads(capfd.readouterr().out)
        names = ("question_order", "answers_to_one_code", "weight_of_repeated_answers", "disagreement")
        return [found[name] for name in names]

    assert facts() == ["widest", "jointly", None, None]
    order, together, repeats, apart = facts("graph.kind=causal", "run.rounds=4", "task.tokens=16")
    assert (order, together) == ("level", None)
    assert isinstance(repeats, list) and len(repeats) == 4 and repeats[:3] == [0.0, 0.0, 0.0]
    assert isinstance(apart, list) and apart[0] == 0.0 < apart[3]
    assert facts("policy.kind=gradient") == [None, None, None, None]
    assert facts("graph.kind=ring", "policy.belief=joint")[2:] == [None, None]
    assert facts("graph.kind=ring", "policy.repeats=0.25", "run.rounds=2")[2] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["policy.order=codes"], "policy.order = 'codes' is not possible"),
        (["policy.kind=static", "policy.order=level"], "policy.order = 'level' is not possible"),
        (["policy.kind=flood", "policy.own_example=true"], "policy.own_example"),
        (["policy.belief=joint", "policy.repeats=0.5"], "policy.repeats"),
        (["policy.repeats=1.5"], "policy.repeats"),
        (["prior.kind=gaussian", "policy.order=level"], "needs a tree"),
        (["policy.belief=exactly"], "policy.belief"),
    ],
)
def test_a_belief_or_order_that_a_policy_does_not_know_is_refused(
    settings: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    assert run(["run", "demo", *words], monkeypatch) == 2
    assert named in capfd.readouterr().err


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["compare", "--help"]])
def test_help_needs_no_experiment(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command, monkeypatch) == 0
    assert "Usage" in capfd.readouterr().out


def test_train_then_run_a_learned_policy_from_the_same_weights(tmp_path: Path) -> None:
    settings = ["--set", "run.rounds=2", "--set", "transformer.steps=30", "--set", "run.engine=local"]
    settings += ["--set", "task.prompts=200", "--json", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answers = []
    for command in (["train", "demo"], ["run", "demo", "--set", "policy.kind=learned"]):
        done = subprocess.run(
            [sys.executable, "-m", "runner", *command, *settings],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert len(list((tmp_path / "weights").iterdir())) == 1, "the weights were trained once"
    assert answers[0]["risk"] == pytest.approx(answers[1]["risk"], rel=1e-5)
