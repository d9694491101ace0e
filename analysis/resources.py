"""What this process may use of the machine: memory and processor cores, inside a container too."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # what version 1 writes where there is no limit is about 2^63


def available_memory() -> int:
    """Memory that this process can still take, in bytes: what is free, and what its cgroups leave of it."""
    left = int(psutil.virtual_memory().available)
    for limit, usage in _memory_limits():
        left = min(left, max(0, limit - usage))
    return left


def available_cores() -> int:
    """Processor cores that this process may use: its affinity mask, cut by the quotas of its cgroups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota, period in _core_quotas():
        allowed = min(allowed, max(1, quota // period))
    return allowed


def machine() -> tuple[int, int]:
    """Processor cores and memory in bytes of the whole machine, whatever this process may use of them."""
    return os.cpu_count() or 1, int(psutil.virtual_memory().total)


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Limit and usage without what the kernel would give back, of each cgroup that holds this process."""
    for folder, version in _groups("memory"):
        names = (
            ("memory.max", "memory.current")
            if version == 2
            else (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        )
        limit, usage = (_number(folder / name) for name in names)
        if limit is not None and usage is not None and limit < _UNLIMITED:
            yield limit, usage - _cache(folder / "memory.stat")


def _core_quotas() -> Iterator[tuple[int, int]]:
    """Quota and period of processor time, in microseconds, of each cgroup that holds this process."""
    for folder, version in _groups("cpu"):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota), int(period)


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The cgroup of this process and those above it, with the version of their hierarchy."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            root, version = _CGROUPS, 2
        elif controller in names.split(","):
            root, version = _CGROUPS / names, 1
            root = root if root.exists() else _CGROUPS / controller
        else:
            continue
        folder = root / path.lstrip("/")
        yield from ((above, version) for above in (folder, *folder.parents) if above.is_relative_to(root))


def _cache(statistics: Path) -> int:
    """Bytes of files that the kernel keeps in memory and gives back when it is asked for."""
    fields = dict(line.split(" ", 1) for line in _text(statistics).splitlines() if " " in line)
    value = fields.get("total_inactive_file", fields.get("inactive_file", "0"))
    return int(value) if value.isdigit() else 0


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """The content of a small file; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
