"""A shell completes commands, options, presets, files, keys and values, and loads none of what they name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
HEAVY = ("ray", "torch", "networkx", "numpy", "pandas", "matplotlib")
_LOADED = f"""
import sys
from runner.cli import main
sys.argv = ["tokenfield"]
try: main()
except SystemExit: pass
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mine.toml", "notes.txt", "inner/other.toml", "runs/one/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def in_bash(words: list[str], folder: Path) -> set[str]:
    """What bash proposes for the last word, broken into words as bash does it."""
    script = """
        eval "$SCRIPT"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        $(complete -p tokenfield | sed 's/.*-F //; s/ .*//') tokenfield
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    shown = subprocess.run(
        ["bash", "-c", "tokenfield --show-completion; true"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", "tokenfield", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(SCRIPT=shown.stdout),
    )
    assert done.stderr == ""
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["co"], {"compare", "compile"}),
        (["run", "--ra"], {"--ray-folder"}),
        (["run", "de"], {"demo"}),
        (["compare", ""], {"ablations", "causal", "demo", "locality", "mine.toml", "inner/", "runs/"}),
        (["run", "mi"], {"mine.toml"}),
        (["run", "inn"], {"inner/other.toml"}),
        (["run", "no"], set()),
        (["run", "demo", "--set", "channel.b"], {"channel.bits=", "channel.bits=24"}),
        (["run", "demo", "--set", "run.r"], {"run.rounds=", "run.rounds=4"}),
        (["run", "demo", "--set", "run.engine", "="], {"local", "ray"}),
        (["run", "demo", "--set", "run.engine", "=", "l"], {"local"}),
        (["run", "demo", "--set", "=", "run.engine", "=", "l"], {"local"}),
        (["run", "--set", "run.rounds", "=", "3", "--set", "policy.kind", "=", "g"], {"gossip", "gradient"}),
        (["run", "--set", "run.rounds", "=", "3", "de"], {"demo"}),
        (["check", "demo", "--set", "graph.mixing", "=", ""], {"uniform", "metropolis"}),
        (["check", "demo", "--set", "policy.own_example", "=", ""], {"true", "false"}),
        (["check", "demo", "--set", "policy.repeats", "=", ""], {"auto"}),
        (["check", "demo", "--set", "ablation.s"], {"ablation.seeds=", "ablation.seeds=5"}),
        (["check", "demo", "--set", "unheard.of"], set()),
        (["run", "demo", "--out", "r"], {"runs/", "runs/one/"}),
        (["resume", "runs/"], {"runs/one/"}),
    ],
)  # fmt: skip
def test_bash_proposes(words: list[str], expected: set[str], folder: Path) -> None:
    assert in_bash(words, folder) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_propose_the_whole_word(shell: str, folder: Path) -> None:
    done = subprocess.run(
        [str(BIN / "tokenfield")],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(
            _TOKENFIELD_COMPLETE=f"complete_{shell}",
            _TYPER_COMPLETE_ARGS="tokenfield run demo --set run.engine=",
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        ),
    )
    assert "run.engine=local" in done.stdout and "run.engine=ray" in done.stdout


@pytest.mark.parametrize("words", [["r"], ["run", "d"], ["run", "demo", "--set", "policy."]])
def test_what_completes_a_word_loads_nothing_heavy(words: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(
            _TOKENFIELD_COMPLETE="complete_bash",
            COMP_WORDS="\n".join(["tokenfield", *words]),
            COMP_CWORD=str(len(words)),
        ),
    )
    assert done.stdout.strip()
    assert done.stderr.strip() == "[]"


def test_completion_is_installed_where_the_shell_looks_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", "tokenfield --install-completion; true"],
        capture_output=True,
        text=True,
        env=environment(HOME=str(tmp_path)),
    )
    assert "installed" in done.stdout, done.stderr
    assert "tokenfield" in (tmp_path / ".bashrc").read_text()
