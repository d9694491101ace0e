"""Clusters of several nodes: the same bits wherever actors are, whatever is lost, whoever shares them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis import open_run
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from runner.simulation.simulate import simulate
from tests import chaos
from tests.chaos import Driver, differing_bits, tables_of
from tests.clusters import RayCluster, cluster, free_port

pytestmark = [pytest.mark.ray, pytest.mark.cluster]
README = (Path(__file__).parents[2] / "runner" / "README.md").read_text(encoding="utf-8")
LONG = {**chaos.COMMON, "task.prompts": 1200}
SHORT = {**chaos.COMMON, "task.prompts": 60, "run.batch": 30}


@pytest.fixture(scope="module")
def three() -> Iterator[RayCluster]:
    """A cluster of three nodes."""
    with tempfile.TemporaryDirectory(prefix="tf-", dir="/tmp") as folder, cluster(Path(folder), 3) as found:
        yield found


def expected(settings: dict[str, Any], out: Path) -> dict[str, bytes]:
    done = simulate(Experiment().with_values(settings), engine=LocalEngine(), out=out)
    return tables_of(Path(str(done.folder)))


def played(driver: Driver) -> dict[str, bytes]:
    """The tables of a run that came to its end."""
    said = driver.end()
    assert driver.done, said
    return tables_of(Path(json.loads(driver.done)["run"]))


def stopped(driver: Driver, out: Path) -> tuple[str, Path]:
    """What a driver said that did not come to its end, and its run, which is readable."""
    said = driver.end()
    assert not driver.done
    (folder,) = out.iterdir()
    run = open_run(folder)
    assert not run.is_complete and len(run.prompts)
    return said, folder


def resumed(folder: Path) -> dict[str, bytes]:
    from runner.simulation.resume import resume

    resume(folder, engine=LocalEngine())
    return tables_of(folder)


@pytest.mark.parametrize("per_actor", [1, 4, "auto"])
@pytest.mark.parametrize("graph", ["complete", "ring"])
@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_bits_are_the_same_on_any_nodes(
    nodes: int, graph: str, per_actor: int | str, three: RayCluster, short: Path
) -> None:
    settings = {**SHORT, "graph.kind": graph, "run.tokens_per_actor": per_actor}
    with cluster(short / "ray", nodes) if nodes < 3 else nullcontext(three) as ray:
        driver = Driver(ray, {"out": str(short / "there"), "settings": settings})
        driver.pause(1, time.monotonic())
        held = [len(node.workers("ray::TokenActor")) for node in ray.nodes]
        assert differing_bits(played(driver), expected(settings, short / "here")) == 0
    if per_actor == 1:
        # Where an actor starts is a wish: a node that starts as many processes as it has cores passes it on.
        assert min(held) >= 1 and sum(held) == 12


@pytest.mark.parametrize("how", ["halted", "killed"])
def test_a_node_that_vanishes_in_a_round_changes_no_bit(how: str, short: Path) -> None:
    with cluster(short / "ray", 3) as ray:
        driver = Driver(ray, {"out": str(short / "there"), "settings": LONG})
        driver.pause(9, time.monotonic())
        ray.nodes[1].signal(signal.SIGSTOP if how == "halted" else signal.SIGKILL)
        assert differing_bits(played(driver), expected(LONG, short / "here")) == 0


def test_a_head_that_is_lost_ends_the_run_with_a_word_and_it_is_resumed(short: Path) -> None:
    with cluster(short / "ray", 2) as ray:
        driver = Driver(ray, {"out": str(short / "there"), "settings": LONG})
        driver.pause(9, time.monotonic())
        ray.head.signal(signal.SIGKILL)
        said, folder = stopped(driver, short / "there")
    assert "head of the cluster" in said and "tokenfield resume" in said
    assert differing_bits(resumed(folder), expected(LONG, short / "here")) == 0


def test_memory_that_is_exhausted_ends_the_run_with_a_word(short: Path) -> None:
    """A node that ends every process as soon as it uses a hundredth of the memory."""
    greedy = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    with cluster(short / "ray", 1, environment=greedy) as ray:
        said = Driver(ray, {"out": str(short / "there"), "settings": SHORT}).end().strip()
    assert "memory" in said.splitlines()[-1], said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_actors_on_all_nodes_and_the_run_is_resumed(
    number: signal.Signals, three: RayCluster, short: Path
) -> None:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in {**LONG, "run.engine": "ray"}.items()]
    environment = {key: value for key, value in three.environment.items() if key != "RAY_AUTH_MODE"}
    (short / "e.toml").touch()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "runner", "run", str(short / "e.toml"), *settings,
            "--address", three.address, "--out", str(short / "there"),
        ],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    while not list((short / "there").glob("*/totals.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "tokenfield resume" in said and "Traceback" not in said
    deadline = time.monotonic() + 30
    while any(node.workers("ray::TokenActor") for node in three.nodes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(node.workers("ray::TokenActor") for node in three.nodes)
    (folder,) = (short / "there").iterdir()
    assert differing_bits(resumed(folder), expected(LONG, short / "here")) == 0


def test_a_full_disk_ends_the_run_with_a_word_and_it_is_resumed(short: Path) -> None:
    disk = short / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a file system")
    try:
        settings = {**LONG, "run.trace": "rounds", "run.engine": "local"}
        given = json.dumps({"address": "local", "out": str(disk), "settings": settings})
        process = subprocess.run(
            [sys.executable, "-m", "tests.driver", given], capture_output=True, text=True
        )
        assert process.returncode and "No space left" in process.stderr, process.stderr
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        (folder,) = disk.iterdir()
        assert len(open_run(folder).prompts)
        assert differing_bits(resumed(folder), expected(settings, short / "here")) == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ten_simulations_at_once_have_the_bits_that_each_has_alone(three: RayCluster, short: Path) -> None:
    each = [{**SHORT, "run.seed": seed, "run.tokens_per_actor": 6} for seed in range(10)]
    drivers = [
        Driver(three, {"out": str(short / f"there-{index}"), "settings": settings})
        for index, settings in enumerate(each)
    ]
    for index, (driver, settings) in enumerate(zip(drivers, each, strict=True)):
        assert differing_bits(played(driver), expected(settings, short / f"here-{index}")) == 0


def test_more_literal_actors_than_fit_are_refused_and_two_hundred_run(short: Path) -> None:
    settings = {"task.prompts": 8, "run.rounds": 2, "channel.noise": 0.5, "run.engine": "ray"}
    environment = {**os.environ, "RAY_TMPDIR": str(short)}

    def run(tokens: int) -> subprocess.CompletedProcess[str]:
        sets = [f"--set={key}={value}" for key, value in {**settings, "task.tokens": tokens}.items()]
        command = [sys.executable, "-m", "runner", "run", "demo", *sets, "--json", "--out", str(short)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    refused = run(1000)
    assert refused.returncode == 2 and "GiB" in refused.stderr and "run.tokens_per_actor" in refused.stderr
    done = run(200)
    assert done.returncode == 0, done.stderr
    alone = simulate(Experiment().with_values({**settings, "task.tokens": 200, "run.engine": "local"}))
    assert json.loads(done.stdout)["risk"] == alone.risk.tolist()


def commands() -> list[str]:
    """The lines that the README gives for clusters, without their comments."""
    section = README[README.index("## On a cluster") : README.index("## What it costs")]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_readme_start_a_cluster_and_play_on_it(short: Path) -> None:
    """Of several machines there is one here: it holds the head and one node more."""
    port, dashboard, storage = free_port(), free_port(), (short / "shared").as_uri()
    agents = [f"--dashboard-agent-listen-port={free_port()}" for _ in range(2)]  # other clusters may run here
    (short / "work").mkdir()
    (short / "work" / "EXPERIMENT.toml").write_text("[task]\ntokens = 6\nprompts = 40\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "HOME": str(short), "RAY_TMPDIR": str(short), "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    changed = {
        "HEAD:6379": f"127.0.0.1:{port}", "HEAD:8265": f"127.0.0.1:{dashboard}",
        "--port=6379": f"--port={port}",
        "--include-dashboard=true": f"--include-dashboard=true --dashboard-port={dashboard} {agents[0]} "
        "--num-cpus=1",
        "ray start --address=": f"ray start --num-cpus=1 {agents[1]} --address=",
        "s3://bucket/runs": storage,
    }  # fmt: skip
    lines = commands()
    assert len(lines) == 10
    for old, new in changed.items():
        assert any(old in line for line in lines), old
        lines = [line.replace(old, new) for line in lines]
    submit = next(index for index, line in enumerate(lines) if line.startswith("ray job submit"))
    # The agent that starts jobs is up some time after its node.
    lines[submit] = f"for attempt in 1 2 3 4 5 6 7 8 9 10; do {lines[submit]} && break; sleep 6; done"
    lines[-1] = f"RUN=$(ls {short}/shared | head -1); {lines[-1].replace('/RUN', '/$RUN')}"
    try:
        done = subprocess.run(
            ["bash", "-euxc", "\n".join(lines)], cwd=short / "work", env=environment, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
    finally:
        for process in psutil.process_iter(["cmdline", "environ"]):
            with suppress(psutil.Error):
                if (process.info["environ"] or {}).get("RAY_TMPDIR") == str(short):
                    process.kill()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "succeeded" in done.stdout and "SUCCEEDED" in done.stdout, f"{done.stdout}\n{done.stderr}"
    runs = [open_run(folder) for folder in (short / "shared").iterdir()]
    assert len(runs) == 2 and all(run.is_complete and run.manifest["engine"] == "ray" for run in runs)
    assert differing_bits(*(tables_of(Path(str(run.folder))) for run in runs)) == 0
    alone = simulate(Experiment().with_values({"task.tokens": 6, "task.prompts": 40}))
    assert runs[0].rounds["risk"].tolist() == alone.risk.tolist()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[tuple[str, str]]]:
    """Two hosts with networks of their own, joined by a bridge: (namespace, address)."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need root and ip")
    mark = f"{os.getpid() % 10000}"
    bridge, found = f"tfb{mark}", []
    try:
        _ip("link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError:
        pytest.skip("this process may not make a network")
    try:
        _ip("link", "set", bridge, "up")
        for index in (1, 2):
            name, address = f"tf{mark}-{index}", f"10.213.7.{index}"
            _ip("netns", "add", name)
            found.append((name, address))
            _ip("link", "add", f"tfv{mark}{index}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"tfv{mark}{index}", "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield found
    finally:
        for name, _ in found:
            _ip("netns", "del", name)
        _ip("link", "del", bridge)


def test_hosts_with_networks_of_their_own(hosts: list[tuple[str, str]], short: Path) -> None:
    """The second host is cut off in the middle of a run, which goes on without it."""
    (first, address), (second, _) = hosts
    settings = {**LONG, "run.tokens_per_actor": 1}
    ray = RayCluster(short / "ray", inside=(first, address))
    try:
        ray.join(inside=hosts[1])
        ray.wait_for(2)
        driver = Driver(ray, {"out": str(short / "there"), "settings": settings})
        driver.pause(9, time.monotonic())
        assert driver.process.poll() is None, driver.end()
        assert all(node.workers("ray::TokenActor") for node in ray.nodes)
        _ip("-n", second, "link", "set", "eth0", "down")
        assert differing_bits(played(driver), expected(settings, short / "here")) == 0
    finally:
        ray.close()
