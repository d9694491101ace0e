"""Ray clusters of several nodes on this machine, started by the commands that the README gives.

Each node is a process group of its own, so that a test can end it, or halt it, as a machine that is lost.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
# What the README tells to set where a cluster should notice a lost node within seconds.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class Node:
    """One raylet with its workers; the head's has the control store too."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env=environment, start_new_session=True
            )

    def raylet(self) -> psutil.Process:
        """The process that starts the workers of the node."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.name() == "raylet":
                    return process
        raise RuntimeError(f"no raylet: {self.log.read_text()}")

    def workers(self, title: str = "ray::") -> list[psutil.Process]:
        """Processes whose title begins so, as ray::TokenActor or ray::Hub; none of a node that is gone."""
        found = []
        with suppress(psutil.Error, RuntimeError):
            for process in self.raylet().children(recursive=True):
                with suppress(psutil.Error):
                    if (process.cmdline() or [""])[0].startswith(title):
                        found.append(process)
        return found

    def signal(self, number: int) -> None:
        """To every process of the node."""
        with suppress(psutil.Error):
            whole = psutil.Process(self.process.pid)
            for process in [*whole.children(recursive=True), whole]:
                with suppress(psutil.Error):
                    process.send_signal(number)

    def end(self) -> None:
        """End it in order, and what remains at once."""
        with suppress(psutil.Error):
            whole = psutil.Process(self.process.pid)
            rest = whole.children(recursive=True)
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=15)
            for process in [*rest, whole]:
                with suppress(psutil.Error):
                    process.kill()
        self.process.wait()


class RayCluster:
    """A head and nodes that joined it.

    Args:
        folder: of sockets and logs, with a short path.
        cores: of each node.
        mode: of authentication: token or disabled.
        environment: more variables of the nodes.
        dashboard: with the job server.
        inside: network namespace and address of the head's host; by default that of this process.
    """

    def __init__(
        self,
        folder: Path,
        cores: int = 1,
        mode: str = "token",
        environment: dict[str, str] | None = None,
        dashboard: bool = False,
        inside: tuple[str, str] | None = None,
    ) -> None:
        self.folder, self.cores = folder, cores
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / "token"
        with (
            suppress(FileExistsError),
            os.fdopen(os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file,
        ):
            file.write(secrets.token_hex(32))
        self.environment = {
            **os.environ, **HEALTH, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": str(token),
            **(environment or {}),
        }  # fmt: skip
        self.port, self.dashboard = free_port(), free_port() if dashboard else None
        self.inside = inside
        self.host = inside[1] if inside else "127.0.0.1"
        self.entered = _entered(inside)
        self.address = f"{self.host}:{self.port}"
        options = ["--head", f"--port={self.port}", f"--temp-dir={folder}"]
        options += ["--include-dashboard=false"]
        if dashboard:
            options[-1:] = ["--include-dashboard=true", f"--dashboard-port={self.dashboard}"]
        self.nodes: list[Node] = []
        self.head = self._start(options, inside)
        self.wait_for(1)

    def join(self, inside: tuple[str, str] | None = None) -> Node:
        """One node more; it takes some seconds to be up."""
        return self._start([f"--address={self.address}"], inside)

    def rejoin(self, count: int) -> None:
        """One node more, in place of one that was lost, until so many are up; a failed start is repeated."""
        for attempt in range(4):
            self.join(self.inside)
            try:
                self.wait_for(count)
                return
            except (subprocess.SubprocessError, RuntimeError):
                if attempt == 3:
                    raise
                self.nodes.pop().end()

    def _start(self, options: list[str], inside: tuple[str, str] | None = None) -> Node:
        options += [f"--node-ip-address={inside[1]}"] if inside else []
        command = [
            *_entered(inside),
            RAY,
            "start",
            *options,
            f"--num-cpus={self.cores}",
            "--disable-usage-stats",
            "--block",
        ]
        node = Node(command, self.environment, self.folder / f"node-{len(self.nodes)}.log")
        self.nodes.append(node)
        return node

    def wait_for(self, count: int, seconds: float = 60) -> None:
        """Until so many nodes are up."""
        ask = (
            "import sys, time; from ray._raylet import GcsClient\n"
            "client = GcsClient(address=sys.argv[1])\n"
            "def up(): return sum(n.state == 0 for n in client.get_all_node_info(timeout=30).values())\n"
            "while up() != int(sys.argv[2]): time.sleep(.1)"
        )
        deadline = time.monotonic() + seconds
        while True:
            probe = f"import socket; socket.create_connection(({self.host!r}, {self.port}), 1).close()"
            if not subprocess.run(
                [*self.entered, sys.executable, "-c", probe], capture_output=True
            ).returncode:
                break
            if time.monotonic() > deadline or self.head.process.poll() is not None:
                raise RuntimeError(f"the head did not start: {self.head.log.read_text()}")
            time.sleep(0.1)
        subprocess.run(
            [*self.entered, sys.executable, "-c", ask, self.address, str(count)],
            env=self.environment,
            timeout=seconds,
            check=True,
        )

    def close(self) -> None:
        """End all nodes."""
        for node in reversed(self.nodes):
            node.signal(signal.SIGCONT)
            node.end()


@contextmanager
def cluster(folder: Path, nodes: int = 1, **options: object) -> Iterator[RayCluster]:
    """A cluster of so many nodes, ended at the end."""
    found = RayCluster(folder, **options)  # type: ignore[arg-type]
    try:
        for count in range(2, nodes + 1):  # one by one: two that start at once may take each other's ports
            found.join()
            found.wait_for(count)
        yield found
    finally:
        found.close()


def _entered(inside: tuple[str, str] | None) -> list[str]:
    """What a command in a network namespace begins with."""
    return ["ip", "netns", "exec", inside[0]] if inside else []


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
