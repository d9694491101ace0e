"""What Ray reads from the environment, once, when it is imported: set it before."""

import os
from pathlib import Path


def prepare(joining: bool) -> None:
    """Set Ray's environment, where the user has not.

    Args:
        joining: whether a running cluster will be joined. Ray then presents a token only if it is told
            to, although clusters ask for one by default: so it is told to, where there is a token.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # SIGTERM is for this process to handle; Ray's own handler aborts with pages of a C++ trace.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    # What goes wrong is raised here and told once; Ray would print it on standard output too.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if joining:
        if _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        return
    # In a cluster of our own, metrics would cost a fifth of the rounds.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # One actor, one process: they may all start at once, whatever the number of cores.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "1024")


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()
