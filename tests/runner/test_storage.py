"""What a manifest says of the code is true, and only failures of the user's own files are told as such."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.exit import exit_codes
from runner.storage import manifest
from runner.storage.manifest import git_revision


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_is_that_of_the_checkout_that_tracks_the_file(tmp_path: Path) -> None:
    source = tmp_path / "site-packages" / "runner" / "manifest.py"
    source.parent.mkdir(parents=True)
    shutil.copy(Path(manifest.__file__), source)
    assert git_revision(source) is None, "no checkout"
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody else's")
    assert git_revision(source) is None, "a checkout of something else, which does not track it"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    assert git_revision(source) == git(tmp_path, "rev-parse", "HEAD")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_broken_pipe_and_a_full_disk_are_the_users(number: int) -> None:
    program = f"from runner.cli.exit import exit_codes\nwith exit_codes(): raise OSError({number}, 'told')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "told" in ended.stderr and "Traceback" not in ended.stderr


def test_any_other_failure_of_the_system_keeps_its_traceback() -> None:
    with pytest.raises(PermissionError), exit_codes():
        raise PermissionError(errno.EACCES, "a defect of ours")
