"""What a name in an experiment file may stand for: tokenfield's own entries, and those of other packages.

A distribution adds a prior, a policy or a graph family by an entry point in the group `tokenfield.priors`,
`tokenfield.policies` or `tokenfield.families`, whose value is what the registry of that name holds.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import AfterValidator, GetJsonSchemaHandler

from agents.policies import POLICIES
from agents.prior import PRIORS
from runner.errors import UsageError
from topology.families import FAMILIES

_GROUPS: dict[str, MutableMapping[str, Any]] = {
    "tokenfield.priors": PRIORS,
    "tokenfield.policies": POLICIES,
    "tokenfield.families": FAMILIES,
}


@cache
def load_entry_points() -> None:
    """Add what installed distributions register, once in a process.

    Raises:
        UsageError: if an entry cannot be loaded, or has a name that is taken.
    """
    for group, registry in _GROUPS.items():
        for point in entry_points(group=group):
            if point.name in registry:
                possible = f"a name that is not taken; {', '.join(registry)} are"
                raise UsageError(f"entry point {group}", f"{point.name} = {point.value}", possible)
            try:
                registry[point.name] = point.load()
            except Exception as failure:  # whatever the foreign module raises
                possible = f"an entry that can be loaded ({type(failure).__name__}: {failure})"
                raise UsageError(f"entry point {group}", f"{point.name} = {point.value}", possible) from None


@dataclass(frozen=True)
class OneOf(AfterValidator):
    """Marks a string of an experiment file that is one of some names, which are checked when it is read.

    Attributes:
        func: refuses another string.
        names: gives the names that are possible, in order.
    """

    names: Callable[[], Iterable[str]]

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """In a JSON schema it is an enumeration."""
        return {**handler(schema), "enum": list(self.names())}


def one_of(names: Callable[[], Iterable[str]]) -> OneOf:
    """One of some names that are looked up when a file is read."""

    def check(name: str) -> str:
        if name not in (known := list(names())):
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        return name

    return OneOf(check, names)


def entry_of(registry: Mapping[str, Any], *more: str) -> OneOf:
    """A name in a registry, or one of a few others."""

    def names() -> list[str]:
        load_entry_points()
        return [*registry, *more]

    return one_of(names)
