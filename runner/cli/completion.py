"""What the shell proposes for a word: presets and files, keys of an experiment and their values.

All of it is read from the JSON schema that comes with tokenfield: a shell waits for it, and the packages that
experiments are made of take ten times as long to load.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path
from typing import Any

import runner.config
from runner.config.files import presets

SCHEMA = Path(runner.config.__file__).with_name("experiment.schema.json")
_ENTRIES = {
    "prior.kind": "tokenfield.priors",
    "policy.kind": "tokenfield.policies",
    "graph.kind": "tokenfield.families",
}


def complete_file(incomplete: str) -> list[str]:
    """Presets, experiment files, and folders that may hold some.

    Example:
        >>> complete_file("abl")
        ['ablations']
    """
    return [*sorted(name for name in presets() if name.startswith(incomplete)), *_paths(incomplete, ".toml")]


def complete_sweep(incomplete: str) -> list[str]:
    """Presets of sweeps, sweep files, and folders that may hold some.

    Example:
        >>> complete_sweep("fin")
        ['finite-size']
    """
    from runner.config.sweep import sweeps

    return [*sorted(name for name in sweeps() if name.startswith(incomplete)), *_paths(incomplete, ".toml")]


def complete_folder(incomplete: str) -> list[str]:
    """Folders."""
    return _paths(incomplete, "/")


def complete_setting(incomplete: str) -> list[str]:
    """Keys of an experiment, as `key=`; a key that is typed to its end with the values that it may have.

    Example:
        >>> complete_setting("run.engine=l"), complete_setting("channel.b")
        (['run.engine=local'], ['channel.bits=', 'channel.bits=24'])
    """
    keys = [key for key in _keys() if f"{key[0]}=".startswith(incomplete.partition("=")[0])]
    if len(keys) > 1 and "=" not in incomplete:
        return [f"{key}=" for key, _ in keys]
    # A default beside the bare key keeps a shell from putting a blank behind the latter.
    found = [f"{key}={value}" for key, schema in keys for value in ("", *_values(key, schema))]
    return [setting for setting in found if setting.startswith(incomplete) and setting != incomplete]


def complete_bash(answer: Callable[[], None]) -> None:
    """Let a word that bash has broken at its `=` be completed whole, and print what follows the `=`.

    Args:
        answer: prints what completes the word COMP_CWORD of COMP_WORDS.
    """
    joined: list[str] = []
    for word in os.environ.get("COMP_WORDS", "").split("\n")[: int(os.environ.get("COMP_CWORD", "0")) + 1]:
        if joined and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    os.environ.update(COMP_WORDS="\n".join(joined), COMP_CWORD=str(len(joined) - 1))
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        answer()
    typed = joined[-1].partition("=")[2] if joined[-1].startswith("--") else joined[-1]
    kept = typed[: typed.rfind("=") + 1]
    print("\n".join(line.removeprefix(kept) for line in printed.getvalue().splitlines()))


def _keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key `table.key` with its schema."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for table, entry in schema["properties"].items():
        (reference,) = (one["$ref"] for one in (entry, *entry.get("anyOf", ())) if "$ref" in one)
        for key, content in schema["$defs"][reference.rpartition("/")[2]]["properties"].items():
            yield f"{table}.{key}", content


def _values(key: str, schema: dict[str, Any]) -> list[str]:
    """What a key may be, where that can be listed, or else its default."""
    branches = [schema, *schema.get("anyOf", ())]
    listed = [value for branch in branches for value in branch.get("enum", [])]
    listed += [branch["const"] for branch in branches if "const" in branch]
    if schema.get("type") == "boolean":
        listed += [False, True]
    if key in _ENTRIES:
        listed += [point.name for point in entry_points(group=_ENTRIES[key])]
    default = schema.get("default")
    if default not in listed and isinstance(default, str | int | float):
        listed.append(default)
    return [value if isinstance(value, str) else json.dumps(value) for value in listed]


def _paths(incomplete: str, ending: str) -> list[str]:
    """Paths with an ending, and folders; a folder that is the only one is looked into."""
    parent, slash, start = incomplete.rpartition("/")
    found = []
    with suppress(OSError, ValueError):
        for path in sorted(Path(parent + slash).expanduser().iterdir()):
            name = f"{path.name}/" if path.is_dir() else path.name
            hidden = name.startswith(".") and not start
            if name.startswith(start) and name.endswith(("/", ending)) and not hidden:
                found.append(parent + slash + name)
    if len(found) == 1 and found[0].endswith("/") and found[0] != incomplete:
        return found * (ending == "/") + _paths(found[0], ending) or found
    return found
