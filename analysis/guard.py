"""The four packages that Python finds by name are tokenfield's own, and of one version.

Their names are common. Another distribution, or a folder, that comes first on sys.path would be
imported instead, and fail later in some way that does not name it.
"""

import re
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

PACKAGES = ("agents", "topology", "runner", "analysis")
_MARK = re.compile(r'^__tokenfield__ = "([^"]+)"$', re.MULTILINE)


def check_packages() -> None:
    """Raise an ImportError that names what was found in place of tokenfield's own packages.

    The marks are read, not imported: a stranger's package is not run, and no import is circular.

    Example:
        >>> check_packages()
    """
    found = {}
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None:
            raise ImportError(f"tokenfield's package `{name}` is not installed: reinstall tokenfield.")
        mark = _MARK.search(_source(spec))
        if mark is None:
            raise ImportError(
                f"tokenfield needs its own package `{name}`, but Python finds another one of that name "
                f"first, at {_place(spec)}. Uninstall the distribution that it belongs to, or rename the "
                "folder, or take it off PYTHONPATH; or install tokenfield in an environment of its own."
            )
        found[name] = mark[1], _place(spec)
    if len({version for version, _ in found.values()}) > 1:
        places = "; ".join(f"{name} {version} at {place}" for name, (version, place) in found.items())
        raise ImportError(f"tokenfield's packages are of different versions: {places}. Keep one of them.")


def _source(spec: ModuleSpec) -> str:
    """Text of the package's __init__, empty where there is none to read."""
    reader = getattr(spec.loader, "get_source", None)
    try:
        return (reader and reader(spec.name)) or ""
    except ImportError:  # the file is not text in the encoding it claims
        return ""


def _place(spec: ModuleSpec) -> str:
    """Where the package was found; a folder without __init__ has no origin."""
    return spec.origin or ", ".join(spec.submodule_search_locations or ())
