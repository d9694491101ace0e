"""Reading TOML that anyone may have written: of bounded size and depth, every mistake with its name."""

import tomllib
from pathlib import Path
from typing import Any

from runner.errors import UsageError

# An experiment takes two KiB. The reader of the standard library takes memory that grows as the square of
# the parts of a dotted key, and a key stands on one line.
_MOST_BYTES = 2**16
_LONGEST_LINE = 4096


def presets() -> dict[str, Path]:
    """The experiment files that come with tokenfield, by name.

    Example:
        >>> sorted(presets())
        ['ablations', 'causal', 'demo', 'locality']
    """
    return {path.stem: path for path in Path(__file__).with_name("presets").glob("*.toml")}


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        UsageError: if there is none, it is not text in UTF-8, not TOML, or larger than any experiment.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        return _parsed(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise _refused(path, "the path of an experiment file (TOML)") from None
    except (OSError, UnicodeDecodeError) as failure:
        raise _refused(path, f"a readable text file in TOML ({failure})") from None
    except ValueError as failure:  # also of an integer with thousands of digits, which TOML would allow
        raise _refused(path, f"valid TOML; {failure}") from None


def toml_value(setting: str, text: str) -> object:
    """The value that stands behind `key=`: in TOML, or else a string.

    Raises:
        UsageError: if it is larger or deeper than a value of an experiment.

    Example:
        >>> toml_value("run.rounds=3", "3"), toml_value("policy.kind=static", "static")
        (3, 'static')
    """
    try:
        content = _parsed(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as failure:
        raise UsageError("--set", setting, f"key=value; {failure}") from None
    return content["value"] if content.keys() == {"value"} else text


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > _MOST_BYTES:
        raise ValueError(f"this one has more than {_MOST_BYTES:,} bytes, and no experiment has")
    longest = max((len(line) for line in text.splitlines()), default=0)
    if longest > _LONGEST_LINE:
        raise ValueError(f"lines of up to {_LONGEST_LINE:,} characters, this one has one of {longest:,}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("tables or lists are nested deeper than in any experiment") from None


def _refused(path: Path, possible: str) -> UsageError:
    return UsageError("file", str(path), possible)
