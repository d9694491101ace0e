"""A cluster that will be joined: whether it can be, and how, before Ray is loaded into this process.

Ray reads its mode of authentication once, and a driver whose mode, Python or machine does not fit fails in
many ways, some of them late. So another process asks the cluster first.
"""

import json
import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from runner.errors import UsageError

_PATIENCE = 30  # seconds for an answer; loading Ray takes one
_TOKENS = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"

# Prints one JSON object: the address, and what the cluster says of itself, or why it says nothing.
_ASK = """
import json, sys, time
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    address = canonicalize_bootstrap_address(sys.argv[1])
    client = GcsClient(address=address)
    said = json.loads(client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=10))
    for attempt in range(100):  # a cluster that was just started has none yet
        nodes = client.get_all_node_info(timeout=10).values()
        said["nodes"] = [node.node_manager_address for node in nodes if node.state == 0]
        if said["nodes"]:
            break
        time.sleep(0.1)
    print(json.dumps({"address": address, **said}))
except AuthenticationError:
    print(json.dumps({"locked": True}))
except Exception as failure:
    print(json.dumps({"failure": f"{failure}" or type(failure).__name__}))
"""


@cache
def admitted(address: str) -> tuple[str, str]:
    """Address of a running cluster that this process may join, and the mode of authentication it speaks.

    A process asks once: Ray cannot change its mode in it.

    Args:
        address: host:port, or auto for the cluster of which this machine is a node.

    Raises:
        UsageError: if none runs there, it runs another Ray or Python, this machine is no node of it, or it
            asks for a token that is not there.
    """
    if "://" in address:
        raise UsageError(
            "--address", address, "host:port of a running Ray cluster, joined from one of its nodes"
        )
    _check_reachable(address)
    said = _asked(address, "disabled")
    mode = "token" if "locked" in said else "disabled"
    if mode == "token":
        if not _has_token():
            path = os.environ.get("RAY_AUTH_TOKEN_PATH")
            possible = f"a cluster whose token is in {_TOKENS}; this one asks for a token, and none is there"
            advice = f"RAY_AUTH_TOKEN_PATH = {path!r} is no file with a token" if path else ""
            raise UsageError("--address", address, possible, advice)
        said = _asked(address, mode)
        if "locked" in said:
            possible = f"a cluster whose token is in {_TOKENS}; this one has another token"
            raise UsageError("--address", address, possible)
    if "failure" in said:
        raise UsageError("--address", address, f"host:port of a running Ray cluster ({said['failure']})")
    _check_versions(address, said)
    own = {part.address for parts in psutil.net_if_addrs().values() for part in parts}
    if not own & set(said["nodes"]):
        nodes = ", ".join(said["nodes"][:5]) or "none"
        advice = (
            f"Start a node here (ray start --address={said['address']}), or run the command on one of them"
        )
        raise UsageError(
            "--address", address, f"a cluster with a node on this machine; its nodes: {nodes}", advice
        )
    return str(said["address"]), mode


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would wait."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as failure:
        raise UsageError("--address", address, f"host:port of a running Ray cluster ({failure})") from None


def _check_versions(address: str, said: dict[str, Any]) -> None:
    """Ray sends Python objects between its nodes: both sides must be the same."""
    for noun, there, here in (
        ("Ray", said["ray_version"], version("ray")),
        ("Python", said["python_version"], platform.python_version()),
    ):
        if there != here:
            possible = f"a cluster of {noun} {here}, as here; this one runs {noun} {there}"
            advice = f"Install tokenfield under {noun} {there} here, or start the cluster with {noun} {here}"
            raise UsageError("--address", address, possible, advice)


def _asked(address: str, mode: str) -> dict[str, Any]:
    """What the cluster says of itself to a process that speaks a mode of authentication."""
    environment = {**os.environ, "RAY_AUTH_MODE": mode}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK, address],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer in {_PATIENCE} s"}
    except (ValueError, IndexError):
        return {"failure": "no answer of Ray"}
    return found


def _has_token() -> bool:
    """Whether Ray would find a token: it looks in these places, and takes the first that is named."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.is_file() and path.stat().st_size > 0
