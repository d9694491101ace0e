"""A running cluster is joined with its token, its actors run our code, and the bits are the same."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.config.experiment import Experiment
from runner.simulation.simulate import simulate

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster that was started as a user would, in a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path("/tmp") / f"tf-{os.getpid()}-{port}"  # sockets need a short path
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        f"--port={port}",
        "--num-cpus=2",
    ]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats", "--block"]
    with (tmp_path_factory.mktemp("head") / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(3)  # the raylet registers after the control store listens
                return
        time.sleep(0.2)
    raise RuntimeError("the cluster did not start")


@pytest.mark.parametrize("how", ["--address", pytest.param("RAY_ADDRESS", marks=pytest.mark.slow)])
def test_a_named_cluster_is_joined_and_gives_the_same_bits(head: str, how: str, tmp_path: Path) -> None:
    settings = {"task.tokens": 4, "task.prompts": 50, "channel.noise": 1.0, "channel.bits": 16}
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    arguments += ["--address", head] if how == "--address" else []
    environment = {**os.environ, **({"RAY_ADDRESS": head} if how == "RAY_ADDRESS" else {})}
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", "demo", "--json", "--out", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    expected = simulate(Experiment().with_values(settings))
    assert json.loads(done.stdout)["risk"] == expected.risk.tolist()
