"""What Ray reads from the environment, once, when it is imported: set it before."""

import os
import sys
import tempfile
from pathlib import Path

from runner.engines.cluster import admitted
from runner.errors import UsageError

_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of a path that may name a socket
# Ray's longest, below its folder.
_SESSION = "ray/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"


def prepare(address: str | None = None, folder: str | None = None) -> str | None:
    """Set Ray's environment, where the user has not; gives the address of the cluster to join, if any.

    Args:
        address: of a running cluster; None for that of RAY_ADDRESS, or one of our own.
        folder: see `use_folder`.

    Raises:
        UsageError: if a cluster was named and cannot be joined, or one of our own could not write its
            sockets and logs.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # SIGTERM is for this process to handle; Ray's own handler aborts with pages of a C++ trace.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    # What goes wrong is raised here and told once; Ray would print it on standard output too.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    named = address or os.environ.get("RAY_ADDRESS")
    if named and named != "local":  # which asks for one of our own
        found, mode = admitted(named)
        chosen = _mode() or os.environ.setdefault("RAY_AUTH_MODE", mode).lower()
        if chosen != mode:
            possible = f'"{mode}", which the cluster at {named} speaks'
            advice = "Set it, or RAY_ADDRESS, before Ray is imported: it reads them once"
            raise UsageError("RAY_AUTH_MODE", chosen, possible, advice)
        return found
    use_folder(folder)
    # In a cluster of our own, metrics would cost a fifth of the rounds.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # One actor, one process: they may all start at once, whatever the number of cores.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "1024")
    return None


def use_folder(folder: str | None = None) -> None:
    """Let Ray keep its sockets and logs below a folder, and refuse one where it could not.

    Args:
        folder: below which Ray makes a folder `ray`; by default that of RAY_TMPDIR, or of TMPDIR, or /tmp.

    Raises:
        UsageError: if it cannot be written, or is so deep that the paths of Ray's sockets are too long.
    """
    own, other = os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR")
    named = "--ray-folder" if folder else "RAY_TMPDIR" if own else "TMPDIR"
    given = folder or own or other or "/tmp"
    path = Path(given).expanduser().absolute()
    most = _LONGEST_SOCKET - 1 - len(_SESSION.format(pid=os.getpid()))
    advice = "Set --ray-folder or RAY_TMPDIR to a folder of your own, for example one below your home"
    if (length := len(os.fsencode(path))) > most:
        possible = f"a path of up to {most} bytes, below which Ray's sockets fit; this one has {length}"
        raise UsageError(named, given, possible, advice.replace("folder of your own", "shorter path"))
    inside = path / "ray"
    try:
        while not os.path.lexists(inside):  # what Ray would make is not made here, but its parent is tried
            inside = inside.parent
        with tempfile.TemporaryDirectory(dir=inside):
            pass
    except (OSError, ValueError) as failure:
        words = getattr(failure, "strerror", None) or str(failure)
        possible = f"a folder that Ray can write to; {inside} is none ({words})"
        raise UsageError(named, given, possible, advice) from None
    os.environ["RAY_TMPDIR"] = str(path)


def _mode() -> str | None:
    """The mode of authentication that Ray has read in this process; None if it is not loaded yet."""
    loaded = sys.modules.get("ray._private.authentication.authentication_utils")
    if loaded is None:
        return None
    return "token" if loaded.is_token_auth_enabled() else "disabled"
