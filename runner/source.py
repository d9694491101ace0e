"""Which code runs: the version and a hash of the source, so that no two processes run different code."""

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path

PACKAGES = ("agents", "topology", "runner", "analysis")


@cache
def fingerprint() -> str:
    """Version and hash of every source file of the four packages that is found here."""
    digest = hashlib.blake2b(digest_size=8)
    for name in PACKAGES:
        folder = Path(str(import_module(name).__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return f"{import_module('agents').__tokenfield__}+{digest.hexdigest()}"
