"""Which code runs: the version and a hash of the source, so that no two processes run different code."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import agents
from analysis.guard import PACKAGES


def folder_of(package: str) -> Path:
    """Where a package lies; it is not imported, for an actor process needs only some."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"tokenfield's package `{package}` is not installed: reinstall tokenfield.")
    return Path(spec.origin).parent


@cache
def fingerprint() -> str:
    """Version and hash of every source file of the four packages that is found here.

    Example:
        >>> fingerprint().startswith(agents.__tokenfield__)
        True
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in PACKAGES:
        folder = folder_of(name)
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return f"{agents.__tokenfield__}+{digest.hexdigest()}"
