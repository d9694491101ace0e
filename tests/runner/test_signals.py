"""A command that is asked to end keeps what was done, says how to go on, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from analysis import open_run
from runner.storage.manifest import read_stopped

Start = Callable[..., subprocess.Popen[str]]

_LONG = ["--set", "task.prompts=1000000", "--set", "run.batch=20", "--set", "task.tokens=4"]
_ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Python in a session of its own; what it says goes into the file `said`."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **more: object) -> subprocess.Popen[str]:
        with (tmp_path / "said").open("w") as said:
            command = [sys.executable, *arguments]
            begun.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True, **more
                )  # type: ignore[call-overload]
            )
        return begun[-1]

    yield begin
    for process in begun:
        with process:
            process.kill()


def wait_for(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while the process is at it."""
    while not reached():
        assert process.poll() is None
        time.sleep(0.02)


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Whether it has set a handler for SIGTERM."""
    caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def all_gone(children: list[psutil.Process], seconds: float = 20) -> bool:
    """Whether none of them is there still after some seconds."""
    return not psutil.wait_procs(children, timeout=seconds)[1]


@pytest.mark.parametrize("number", _ENDING)
def test_a_run_in_process_is_kept_and_its_folder_named(number: int, start: Start, tmp_path: Path) -> None:
    process = start(
        "-m", "runner", "run", "demo", "--set", "run.engine=local", *_LONG, "--out", str(tmp_path)
    )
    wait_for(lambda: list(tmp_path.glob("*/totals.safetensors")), process)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    (folder,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    assert f"tokenfield resume {folder}" in (tmp_path / "said").read_text()
    assert open_run(folder).manifest["status"] == "stopped"


def test_a_run_on_ray_ends_with_its_cluster(start: Start, tmp_path: Path) -> None:
    process = start("-m", "runner", "run", "demo", "--json", *_LONG, "--out", str(tmp_path))
    wait_for(lambda: list(tmp_path.glob("*/totals.safetensors")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert all_gone(children, 5)
    (folder,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    said = (tmp_path / "said").read_text()
    assert f"tokenfield resume {folder}" in said
    assert "***" not in said and "Traceback" not in said
    assert process.stdout is not None and process.stdout.read() == ""


def test_where_ray_itself_is_told_to_end_too_the_run_can_be_resumed(start: Start, tmp_path: Path) -> None:
    """Ray's processes then end first, and may take the command along before it speaks."""
    process = start("-m", "runner", "run", "demo", *_LONG, "--out", str(tmp_path))
    wait_for(lambda: list(tmp_path.glob("*/totals.safetensors")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    assert all_gone(children)
    (folder,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    assert read_stopped(folder)[1]["status"] in ("running", "stopped")
    assert len(open_run(folder).prompts) >= 5 * 20


def test_a_cluster_that_is_being_started_by_ray_ends_too(start: Start, tmp_path: Path) -> None:
    process = start("-m", "runner", "run", "demo", *_LONG, "--out", str(tmp_path))
    wait_for(lambda: psutil.Process(process.pid).children(), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert all_gone(children)
    assert "Traceback" not in (tmp_path / "said").read_text()


@pytest.mark.parametrize("arguments", [["train", "demo"], ["compare", "demo", "--set", "run.engine=local"]])
def test_training_in_processes_that_hear_the_signal_too(
    arguments: list[str], start: Start, tmp_path: Path
) -> None:
    quick = ["--set", "compare.theory_samples=100", "--set", "transformer.steps=100000"]
    process = start("-m", "runner", *arguments, *quick, "--out", str(tmp_path))
    wait_for(lambda: list((tmp_path / "weights").glob("*")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert all_gone(children)
    said = (tmp_path / "said").read_text()
    assert str(tmp_path / "weights") in said
    assert "Traceback" not in said and "leaked" not in said


@pytest.mark.parametrize(
    "number", [_ENDING[0], *(pytest.param(other, marks=pytest.mark.slow) for other in _ENDING[1:])]
)
def test_processes_that_are_being_started_to_train_say_nothing(
    number: int, start: Start, tmp_path: Path
) -> None:
    quick = ["--set", "compare.theory_samples=2", "--set", "run.engine=local"]
    process = start("-m", "runner", "compare", "demo", *quick, "--out", str(tmp_path))
    wait_for(lambda: len(psutil.Process(process.pid).children()) > 2, process)  # they load their packages
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    assert process.wait(60) == 128 + number
    assert all_gone(children)
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said and "Error" not in said


_WHILE_PARSING = """
import os, signal, sys, time
from typer.core import TyperGroup
from runner.cli import main
def parsed(*given, **named):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
TyperGroup.make_context = parsed
main()
"""


def test_a_signal_while_a_command_is_read_is_told_too(start: Start, tmp_path: Path) -> None:
    process = start("-c", _WHILE_PARSING)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "said").read_text() == "tokenfield: ended by SIGTERM.\n"


def test_theory_ends_with_a_message(start: Start, tmp_path: Path) -> None:
    process = start("-m", "runner", "theory", "demo", "--precision", "100000000")
    wait_for(lambda: handles_signals(process), process)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "said").read_text() == "tokenfield: ended by SIGTERM.\n"


_SLOW_TO_END = """
import time
from runner.cli.exit import exit_codes
with exit_codes():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("second", _ENDING)
def test_a_second_signal_ends_at_once(second: int, start: Start) -> None:
    process = start("-c", _SLOW_TO_END)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.stdout.readline() == "ending\n"
    process.send_signal(second)
    assert process.wait(10) == 128 + second


def test_below_nohup_a_closed_terminal_ends_nothing(start: Start) -> None:
    program = "import time; from runner.cli.exit import exit_codes\nwith exit_codes():\n"
    program += "    print('ready', flush=True); time.sleep(1); print('done')"
    process = start("-c", program, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0


def test_processes_that_train_end_with_a_parent_that_is_killed(start: Start, tmp_path: Path) -> None:
    steps = ["--set", "transformer.steps=100000", "--set", "compare.theory_samples=100"]
    process = start(
        "-m", "runner", "compare", "demo", "--set", "run.engine=local", *steps, "--out", str(tmp_path)
    )
    wait_for(lambda: list((tmp_path / "weights").glob("*")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    assert all_gone(children)
