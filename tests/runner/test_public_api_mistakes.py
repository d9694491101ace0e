"""What a user hands to a public function by mistake is refused by name, before anything starts."""

import json
import subprocess
import sys
from typing import NamedTuple

import pytest

# The calls are made in a process of its own, where annotations are not checked: as a user makes them.
PREPARED = """
import json, sys
from pathlib import Path
import numpy as np
from runner import *
from runner.config.experiment import RunSection
from runner.config.studies import Comparison
from runner.prediction import forecast
from runner.studies import Session
from analysis import open_run
from agents.policies.intervened import Intervened, Patch, Steer
E = Experiment().with_values({"task.prompts": 10, "task.tokens": 4, "run.rounds": 2})
policy = build(E).policy
answers = {}
for call in json.load(sys.stdin):
    try:
        eval(call)
        answers[call] = ("nothing", "")
    except BaseException as failure:
        answers[call] = (type(failure).__name__, str(failure))
import ray
assert not ray.is_initialized()
assert not list(Path().iterdir())
print(json.dumps(answers))
"""

USAGE = {
    "predict(E, 10**12)": "samples = 1000000000000",
    'simulate(E.with_values({"trace.prompts": [6]}), prompts=range(50, 58))': "trace.prompts = 6",
    'E.with_values({"trace.rounds": []})':
        "trace.rounds = [] is not possible; possible: a list of one or more integers from 0",
    'E.with_values({"trace.positions": 3})':
        "trace.positions = 3 is not possible; possible: a list of one or more integers from 0",
    'simulate(3)': "experiment = 3",
    'simulate(E, policy="adaptive")': "policy = 'adaptive'",
    'simulate(E, policy=type(policy))': "policy = <class",
    'simulate(E, engine="local")': "engine = 'local'",
    'simulate(E, engine=LocalEngine)': "engine = <class",
    'simulate(E, graph=3)': "graph = 3",
    'simulate(E, graph="ring")': "graph = 'ring'",
    'simulate(E, prior="tree")': "prior = 'tree'",
    'simulate(E, learned=3)': "policy.kind = ",
    'simulate(E.with_values({"policy.kind": "learned"}), learned=3)': "learned = 3",
    'simulate(E, out=3)': "out = 3",
    'simulate(E, prompts=3)': "prompts = 3",
    'simulate(E, name=3)': "name = 3",
    'simulate(E, observer=3)': "observer = 3",
    'simulate(E, on_round="all")': "on_round = 'all'",
    'build(3)': "experiment = 3",
    'build(E, prior=3)': "prior = 3",
    'build(E, policy=3)': "policy = 3",
    'build(E, like=E)': "like = ",
    'build(E).varied([1])': "values = [1]",
    'E.with_values([1])': "values = [1]",
    'E.with_values([])': "values = []",
    'E.with_values(None)': "values = None",
    'E.with_values({1: 2})': "values = 1",
    'Experiment(run=3)': "run = 3",
    'Experiment(run={"rounds": -1})': "run.rounds = -1",
    'Experiment(rounds=3)': "rounds = 3",
    'Experiment.model_validate(3)': "experiment = 3",
    'LocalEngine(block=-1)': "block = -1",
    'LocalEngine(block=0)': "block = 0",
    'LocalEngine(block=True)': "block = True",
    'LocalEngine(block=2.5)': "block = 2.5",
    'RayEngine(tokens_per_actor=0)': "tokens_per_actor = 0",
    'RayEngine(tokens_per_actor="4")': "tokens_per_actor = '4'",
    'RayEngine(address=3)': "address = 3",
    'predict(3)': "experiment = 3",
    'predict("")': "experiment = ''",
    'predict(E, 0)': "samples = 0",
    'predict(E, 1)': "samples = 1",
    'predict(E, "many")': "samples = 'many'",
    'predict(E, 100, "mean")': "form = 'mean'",
    'forecast(E, 0)': "samples = 0",
    'resume(3)': "folder = 3",
    'resume("none", engine="local")': "engine = 'local'",
    'resume("none", on_round=3)': "on_round = 3",
    'train(3)': "experiment = 3",
    'train(E, 3)': "out = 3",
    'train(E, progress=3)': "progress = 3",
    'compare(3)': "comparison = 3",
    'compare(E)': "comparison = ",
    'compare(Comparison(), 3)': "session = 3",
}  # fmt: skip
OTHERS = {
    'open_run(3)': ("UnreadableError", "path = 3"),
    'open_run(simulate(E).folder)': ("UnreadableError", "path = None"),
    'Intervened(policy, 1.5, Patch([0]))': ("ValueError", "round = "),
    'Intervened(policy, True, Patch([0]))': ("ValueError", "round = "),
    'Intervened("adaptive", 1, Patch([0]))': ("ValueError", "policy = 'adaptive'"),
    'Intervened(type(policy), 1, Patch([0]))': ("ValueError", "policy = <class"),
    'Intervened(policy, 1, 3)': ("ValueError", "change = 3"),
    'Patch([])': ("ValueError", "donors = []"),
    'Patch(np.array([2**63, 0], dtype=np.uint64))': ("ValueError", "donors = "),
    'Intervened(policy, np.uint64(2**63), Patch([0]))': ("ValueError", "round = "),
    'Patch([0.0, 1.0])': ("ValueError", "donors = [0.0, 1.0]"),
    'Patch([[0, 1]])': ("ValueError", "donors = [[0, 1]]"),
    'Patch([1, 0], tokens=[0.5])': ("ValueError", "tokens = [0.5]"),
    'Patch([1, 0], tokens=[True, False])': ("ValueError", "tokens = [True, False]"),
    'Steer([1.0, 2.0])': ("ValueError", "shift = [1.0, 2.0]"),
    'Steer([["a"]])': ("ValueError", "shift = [['a']]"),
}  # fmt: skip
TAKEN = [
    'Patch([1, 0], tokens=[2])(np.zeros((4, 3, 2)), np.arange(4))',
    'simulate(E, engine=LocalEngine(block=np.int64(3)), on_round=lambda prompts, round: None)',
    'simulate(E, policy=Intervened(policy, np.int64(1), Patch(list(range(10)), [3])))',
    'Experiment(run=RunSection(rounds=1), task={"tokens": 5})',
    'predict(E, np.int64(50))',
]  # fmt: skip


class Answer(NamedTuple):
    kind: str
    words: str


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    calls = [*USAGE, *OTHERS, *TAKEN]
    done = subprocess.run(
        [sys.executable, "-c", PREPARED],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("empty"),
    )
    assert done.returncode == 0, done.stderr
    return {call: Answer(*answer) for call, answer in json.loads(done.stdout).items()}


@pytest.mark.parametrize("call", USAGE)
def test_a_mistake_in_a_call_is_told_by_name(call: str, answers: dict[str, Answer]) -> None:
    found = answers[call]
    assert found.kind == "UsageError", found
    assert found.words.startswith(USAGE[call])
    assert "is not possible; possible: " in found.words


@pytest.mark.parametrize("call", OTHERS)
def test_a_mistake_below_the_runner_is_a_value_error_that_names_it(
    call: str, answers: dict[str, Answer]
) -> None:
    kind, words = OTHERS[call]
    assert answers[call].kind == kind, answers[call]
    assert answers[call].words.startswith(words)
    assert "is not possible; possible: " in answers[call].words


@pytest.mark.parametrize("call", TAKEN)
def test_what_is_meant_well_is_taken(call: str, answers: dict[str, Answer]) -> None:
    assert answers[call] == ("nothing", "")


@pytest.mark.parametrize("argument", ['policy="adaptive"', 'engine="local"', 'graph="ring"', 'prior="tree"'])
def test_a_name_in_place_of_an_object_is_told_where_names_stand(
    argument: str, answers: dict[str, Answer]
) -> None:
    assert "with_values({" in answers[f"simulate(E, {argument})"].words


def test_several_keys_that_are_wrong_are_told_together() -> None:
    from runner.config.experiment import Experiment
    from runner.errors import UsageError

    with pytest.raises(UsageError) as caught:
        Experiment(run={"rounds": -1}, task={"tokens": 0})  # type: ignore[arg-type]
    assert {error.key for error in caught.value.errors} == {"run.rounds", "task.tokens"}
