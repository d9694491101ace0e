"""What Ray reads from the environment, once, when it is imported: set it before."""

import os
import sys

from runner.engines.cluster import admitted
from runner.errors import UsageError


def prepare(address: str | None) -> str | None:
    """Set Ray's environment, where the user has not; gives the address of the cluster to join, if any.

    Args:
        address: of a running cluster; None for that of RAY_ADDRESS, or one of our own.

    Raises:
        UsageError: if a cluster was named and cannot be joined.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # SIGTERM is for this process to handle; Ray's own handler aborts with pages of a C++ trace.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    # What goes wrong is raised here and told once; Ray would print it on standard output too.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    named = address or os.environ.get("RAY_ADDRESS")
    if named:
        found, mode = admitted(named)
        chosen = _mode() or os.environ.setdefault("RAY_AUTH_MODE", mode).lower()
        if chosen != mode:
            possible = f'"{mode}", which the cluster at {named} speaks'
            advice = "Set it, or RAY_ADDRESS, before Ray is imported: it reads them once"
            raise UsageError("RAY_AUTH_MODE", chosen, possible, advice)
        return found
    # In a cluster of our own, metrics would cost a fifth of the rounds.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # One actor, one process: they may all start at once, whatever the number of cores.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "1024")
    return None


def _mode() -> str | None:
    """The mode of authentication that Ray has read in this process; None if it is not loaded yet."""
    loaded = sys.modules.get("ray._private.authentication.authentication_utils")
    if loaded is None:
        return None
    return "token" if loaded.is_token_auth_enabled() else "disabled"
