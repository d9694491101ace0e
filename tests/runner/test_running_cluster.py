"""A running cluster is joined with its token, its actors run our code, and the bits are the same."""

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runner.config.experiment import Experiment
from runner.engines import cluster
from runner.errors import UsageError
from runner.simulation.simulate import simulate

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", params=["token", "disabled"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster that was started as a user would, in a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path("/tmp") / f"tf-{os.getpid()}-{port}"  # sockets need a short path
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats"]
    environment = {**os.environ, "RAY_AUTH_MODE": request.param}
    with (tmp_path_factory.mktemp("head") / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--block"], stdout=log, stderr=log, start_new_session=True, env=environment
        )
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
                return
        time.sleep(0.2)
    raise RuntimeError("the cluster did not start")


def _environment(head: str, named: bool) -> dict[str, str]:
    """Of a user who names the cluster there, and has set no mode of authentication."""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    return {**kept, "RAY_ADDRESS": head} if named else kept


@pytest.mark.parametrize("how", ["--address", pytest.param("RAY_ADDRESS", marks=pytest.mark.slow)])
def test_a_named_cluster_is_joined_and_gives_the_same_bits(head: str, how: str, tmp_path: Path) -> None:
    """Clusters that ask for a token, and those that ask for none, though the driver has one."""
    settings = {"task.tokens": 4, "task.prompts": 50, "channel.noise": 1.0, "channel.bits": 16}
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    arguments += ["--address", head] if how == "--address" else []
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", "demo", "--json", "--out", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        env=_environment(head, how == "RAY_ADDRESS"),
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    expected = simulate(Experiment().with_values(settings))
    assert json.loads(done.stdout)["risk"] == expected.risk.tolist()


@pytest.fixture
def ask(head: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[str, str]]:
    """Ask the cluster anew, as a process with nothing set would."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    return lambda: cluster.admitted.__wrapped__(head)


def test_a_cluster_says_which_authentication_it_speaks(
    ask: Callable[[], tuple[str, str]], head: str, request: pytest.FixtureRequest
) -> None:
    address, mode = ask()
    assert address.rpartition(":")[2] == head.rpartition(":")[2]
    assert mode == request.node.callspec.params["head"]


@pytest.mark.parametrize("head", ["token"], indirect=True)
@pytest.mark.parametrize("token", ["f" * 64, None, "missing", "empty"])
def test_another_token_or_none_is_refused(
    ask: Callable[[], tuple[str, str]], token: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").touch()
    if token in ("missing", "empty"):
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / token))
    elif token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN"):
        ask()


@pytest.mark.parametrize("head", ["disabled"], indirect=True)
def test_another_ray_or_python_or_a_machine_outside_is_refused(
    ask: Callable[[], tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(platform, "python_version", lambda: "3.11.0")
        with pytest.raises(UsageError, match=r"Python 3\.11\.0, as here; this one runs Python"):
            ask()
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "version", lambda name: "2.0.0")
        with pytest.raises(UsageError, match=r"Ray 2\.0\.0, as here; this one runs Ray"):
            ask()
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    with pytest.raises(UsageError, match="a node on this machine"):
        ask()


def test_what_is_no_cluster_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 3)
    with socket.create_server(("127.0.0.1", 0)) as other:  # which says nothing
        for address in (f"127.0.0.1:{other.getsockname()[1]}", "127.0.0.1:1", "ray://a:1", "nowhere:x", "x"):
            with pytest.raises(UsageError, match="running Ray cluster"):
                cluster.admitted.__wrapped__(address)
