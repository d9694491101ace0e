"""What holds for every test: one thread, checked shapes, a Ray token of its own, the same examples."""

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy is loaded, here and in what is started from here: timings and the rounding of a matrix
# product must not depend on how many cores there are.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Before the packages are loaded: every call is checked against its annotations, and an int is a float
# as it is for mypy. The pytest option of jaxtyping cannot say the latter for several packages.
# What users call first is left out: it refuses by name what it should not be handed.
_RUNNER = [
    f"runner.{name}"
    for name in (
        "cli.console", "cli.describe", "config", "engines.local", "footprint", "prediction", "progress",
        "simulation.accumulator", "simulation.interruption", "storage", "studies", "training",
    )
]  # fmt: skip
install_import_hook(
    ["agents", "topology", "analysis", *_RUNNER],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# Clusters are started by the tests, so no token of the user's is read or written.
_scratch = Path(tempfile.mkdtemp(prefix="tokenfield-"))
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
_token = _scratch / "token"
_token.touch(mode=0o600)
_token.write_text(secrets.token_hex(32))
os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token)

os.environ.pop("RAY_ADDRESS", None)

if TYPE_CHECKING:
    from runner.engines.ray import RayEngine

settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.load_profile("ci")


class ByFile(LoadScopeScheduling):
    """Where tests run side by side, those of a file share a process, and all that need Ray share one."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, name = nodeid.partition("::")
        return "ray" if "ray" in name.partition("[")[0].split("_") or file in _CLUSTERS else file


_CLUSTERS = tuple(
    f"tests/runner/test_{name}.py"
    for name in ("engines", "replay", "running_cluster", "several_nodes", "chaos")
)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """One cluster is enough for all processes."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs Ray says so where the scheduler sees it."""
    for item in items:
        needs = item.get_closest_marker("ray") is not None
        assert not needs or ByFile._split_scope(None, item.nodeid) == "ray", item.nodeid  # type: ignore[arg-type]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="tf-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def ray_engine() -> Iterator["RayEngine"]:
    """One cluster for all tests; its actors are kept from one test to the next."""
    from runner.engines.environment import prepare

    prepare()
    from runner.engines.ray import RayEngine

    engine = RayEngine()
    yield engine
    engine.close()
