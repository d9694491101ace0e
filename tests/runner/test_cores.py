"""What is started follows the cores that a process may use, and check says how many these are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SMALL = ["--set=task.tokens=3", "--set=task.prompts=5", "--set=run.rounds=1", "--json"]
_IDLE = """
import psutil, time
from runner.engines.environment import prepare
prepare()
from runner.engines import ray
ray.available_cores = lambda: {cores}
engine = ray.RayEngine()
engine._ready(2)
time.sleep(1)
idle = 0
for child in psutil.Process().children(recursive=True):
    line = " ".join(child.cmdline())
    starting = "default_worker.py" in line and child.name() != "raylet"
    idle += starting or line.startswith("ray::IDLE")
print("idle", idle)
engine.close()
"""


def on_cores(cores: set[int], command: list[str], folder: Path) -> str:
    """Standard output of a Python program that may use some cores alone."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity masks")
def test_check_says_which_part_of_the_machine_may_be_used(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    facts = json.loads(on_cores({core}, ["-m", "runner", "check", "demo", *SMALL], tmp_path))
    assert facts["cores_available"] == 1
    assert facts["cores_of_the_machine"] == os.cpu_count()
    assert facts["memory_bytes_of_the_machine"] == psutil.virtual_memory().total
    assert 0 < facts["memory_bytes_available"] <= facts["memory_bytes_of_the_machine"]


@pytest.mark.ray
@pytest.mark.parametrize("cores", [pytest.param(1, marks=pytest.mark.slow), 12])
def test_no_process_of_ray_is_idle_however_many_cores_there_are(cores: int, tmp_path: Path) -> None:
    """Two blocks and a hub are three processes; a process that is started ahead is none of them."""
    out = on_cores(os.sched_getaffinity(0), ["-c", _IDLE.format(cores=cores)], tmp_path)
    assert out.split()[-2:] == ["idle", "0"]
