"""Where Ray could not keep its sockets and logs is told before it is imported, and what to set instead."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.engines.environment import use_folder
from runner.errors import UsageError
from tests.commands import run

SMALL = [
    "--set",
    "task.tokens=2",
    "--set",
    "task.prompts=4",
    "--set",
    "run.rounds=1",
    "--set",
    "run.engine=ray",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets is taken back."""
    monkeypatch.setenv("RAY_TMPDIR", os.environ.get("RAY_TMPDIR", "/tmp"))


def unusable(kind: str, folder: Path) -> Path:
    match kind:
        case "a file":
            (folder / "file").touch()
            return folder / "file"
        case "a file in place of Ray's own":
            (folder / "ray").touch()
            return folder
        case "a link to nothing":
            (folder / "ray").symlink_to(folder / "nothing")
            return folder
        case "below a file":
            (folder / "file").touch()
            return folder / "file" / "inside"
        case "of the kernel":
            return Path("/proc/ray-of-mine")
        case "too deep":
            return Path("/tmp") / ("x" * 95)
    raise AssertionError(kind)


KINDS = [
    "a file",
    "a file in place of Ray's own",
    "a link to nothing",
    "below a file",
    "of the kernel",
    "too deep",
]


@pytest.mark.parametrize("how", ["--ray-folder", "RAY_TMPDIR"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_ray_cannot_use_is_refused_by_name_before_anything_starts(
    kind: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = unusable(kind, tmp_path)
    monkeypatch.setattr("runner.training.train", lambda *arguments: pytest.fail("trained"))
    arguments = ["run", "demo", *SMALL, "--out", str(tmp_path / "out"), "--set", "policy.kind=learned"]
    if how == "--ray-folder":
        arguments += ["--ray-folder", str(folder)]
    else:
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
    assert run(arguments, monkeypatch) == 2
    err = capfd.readouterr().err
    assert f"{how} = " in err and str(folder)[:60] in err
    assert "--ray-folder" in err and "RAY_TMPDIR" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("session_*"))


@pytest.mark.parametrize("command", ["compare", "run"])
def test_every_command_that_starts_ray_takes_the_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, "demo", *SMALL, "--out", str(tmp_path), "--ray-folder", "/proc/ray-of-mine"]
    assert run(arguments, monkeypatch) == 2
    assert "/proc/ray-of-mine" in capfd.readouterr().err


def test_a_folder_that_nothing_is_started_in_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/ray-of-mine")
    assert run(["run", "demo", *SMALL, "--set", "run.engine=local", "--out", str(tmp_path)], monkeypatch) == 0


def test_a_folder_beside_the_engine_in_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, "--set", "run.engine=local", "--out", str(tmp_path), "--ray-folder", str(tmp_path)]
    assert run(["run", "demo", *arguments], monkeypatch) == 2
    assert "--ray-folder" in capfd.readouterr().err


def test_a_variable_that_is_empty_names_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.setenv("TMPDIR", "/tmp")
    use_folder()
    assert os.environ["RAY_TMPDIR"] == "/tmp"


def test_a_folder_may_be_as_long_as_the_sockets_of_ray_allow() -> None:
    """Ray refuses a socket whose path has more bytes than the system takes."""
    with pytest.raises(UsageError) as caught:
        use_folder("/tmp/" + "x" * 100)
    most = int(str(caught.value).split("a path of up to ")[1].split()[0])
    use_folder("/tmp/" + "x" * (most - 5))
    with pytest.raises(UsageError, match="shorter"):
        use_folder("/tmp/" + "x" * (most - 4))
    with pytest.raises(UsageError, match="shorter"):
        use_folder("/tmp/" + "ä" * (most // 2))  # two bytes each
    session = f"/ray/session_2026-01-02_03-04-05_678901_{os.getpid()}/sockets/plasma_store"
    assert most + len(session) == (103 if sys.platform == "darwin" else 107)
    assert not Path("/tmp/" + "x" * (most - 5)).exists(), "nothing is made before Ray makes it"


@pytest.mark.ray
def test_a_run_on_ray_leaves_its_session_in_the_folder_that_was_named(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"tf-{os.getpid()}"
    command = [sys.executable, "-m", "runner", "run", "demo", *SMALL, "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--ray-folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RAY_TMPDIR": "/proc/ray-of-mine"},
    )
    found = list(folder.glob("ray/session_*"))
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert found
