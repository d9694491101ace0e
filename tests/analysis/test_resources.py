"""Memory and cores are those of the process: what its cgroups and its affinity mask leave of the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from analysis import resources


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")
    return folder


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """The cgroups that hold this process, as a test makes them: folder and version."""
    found: list[tuple[Path, int]] = []

    def mine(controller: str) -> Iterator[tuple[Path, int]]:
        return iter(found)

    monkeypatch.setattr(resources, "_groups", mine)
    return found


def test_without_a_limit_memory_is_what_is_free(groups: list[tuple[Path, int]]) -> None:
    free = psutil.virtual_memory().available
    assert abs(resources.available_memory() - free) < 0.1 * free


def test_memory_is_what_the_tightest_cgroup_leaves(groups: list[tuple[Path, int]], tmp_path: Path) -> None:
    inner = group(tmp_path / "a", memory__max=str(2**30), memory__current=str(2**29))
    outer = group(tmp_path / "b", memory__max=str(2**29), memory__current=str(2**28))
    (outer / "memory.stat").write_text(f"anon 1\ninactive_file {2**27}\n")
    free = group(tmp_path / "c", memory__max="max", memory__current="1")
    groups += [(inner, 2), (outer, 2), (free, 2)]
    assert resources.available_memory() == 2**29 - (2**28 - 2**27)


def test_memory_of_the_first_version_of_cgroups(groups: list[tuple[Path, int]], tmp_path: Path) -> None:
    folder = group(tmp_path / "a", memory__limit_in_bytes=str(2**29), memory__usage_in_bytes=str(2**20))
    unlimited = group(tmp_path / "b", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="0")
    groups += [(folder, 1), (unlimited, 1)]
    assert resources.available_memory() == 2**29 - 2**20


def test_cores_are_those_of_the_affinity_mask(
    groups: list[tuple[Path, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert resources.available_cores() == 3


@pytest.mark.parametrize(("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8)])
def test_cores_are_cut_by_the_quota(
    quota: str, cores: int, groups: list[tuple[Path, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    groups.append((group(tmp_path / "a", cpu__max=quota), 2))
    assert resources.available_cores() == cores


def test_the_cgroups_of_this_process_are_found_below_their_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "0::/user/job\n4:cpu,cpuacct:/limited\n5:memory:/m\n"
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path)
    monkeypatch.setattr(resources, "_text", lambda path: text if path.name == "cgroup" else "")
    (tmp_path / "cpu,cpuacct").mkdir()
    found = list(resources._groups("cpu"))
    assert (tmp_path / "user" / "job", 2) in found and (tmp_path, 2) in found
    assert (tmp_path / "cpu,cpuacct" / "limited", 1) in found
    assert all(folder.name != "m" for folder, _ in found)
