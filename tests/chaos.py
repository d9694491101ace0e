"""Random kills, at random moments, of whatever plays a run on a cluster: `python -m tests.chaos --kills 200`.

Runs are played on a cluster of three nodes while kill -9 meets actors, hubs, raylets (never the head's, with
which a cluster ends) and drivers. A driver that was killed is resumed by another one. Every table of each run
is then compared, bit by bit, with what one process gives undisturbed. Victims and moments follow from the
seed; what is on its way at that moment does not.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from analysis import open_run
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from runner.simulation.simulate import simulate
from tests.clusters import RayCluster, cluster

NODES = 3
KINDS = {"actor": 0.45, "hub": 0.2, "raylet": 0.2, "driver": 0.15}
COMMON: dict[str, Any] = {
    "task.tokens": 12, "task.prompts": 7200, "run.batch": 60, "run.rounds": 5, "run.trace": "sampled",
    "channel.noise": 0.5, "channel.bits": 12, "run.tokens_per_actor": 3,
}  # fmt: skip
RUNS: list[dict[str, Any]] = [
    {},
    {"graph.kind": "ring", "graph.degree": 2},
    {"graph.kind": "causal", "graph.mixing": "metropolis", "policy.order": "level"},
    {"task.tokens": 4, "run.tokens_per_actor": 1, "channel.channels": 2},
    {"graph.kind": "random_regular", "run.tokens_per_actor": "auto", "policy.kind": "gossip"},
]
PAUSE = (0.2, 2.5)  # seconds between a recovery and the next kill
PATIENCE = 300.0  # seconds without a round after which a run is lost


@dataclass
class Ledger:
    """What was killed, the longest pause between two rounds after it, and how many bits differed."""

    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    runs: int = 0
    differing: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(map(len, self.recoveries.values()))

    def table(self) -> Table:
        """A row for each kind of victim."""
        table = Table(title=f"{self.kills} kills, {self.runs} runs, {self.differing} differing bits")
        for heading in ("killed", "times", "pause between rounds: median s", "longest s"):
            table.add_column(heading)
        for kind, times in sorted(self.recoveries.items()):
            table.add_row(kind, str(len(times)), f"{median(times):.1f}", f"{max(times):.1f}")
        return table


class Driver:
    """A process that plays a run."""

    def __init__(self, cluster: RayCluster, given: dict[str, Any]) -> None:
        self.ended: list[float] = []  # moments at which rounds did
        self.done = ""
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when it has ended)
        environment = {key: value for key, value in cluster.environment.items() if key != "RAY_AUTH_MODE"}
        words = json.dumps({"address": cluster.address, **given})
        self.process = subprocess.Popen(
            [*cluster.entered, sys.executable, "-m", "tests.driver", words],
            stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("round"):
                self.ended.append(time.monotonic())
            elif line.startswith("done "):
                self.done = line.removeprefix("done ")

    def pause(self, rounds: int, began: float) -> float:
        """The longest time without a round that ended, until so many did, or all of the run."""
        before = len(self.ended)
        while len(self.ended) < before + rounds and self.process.poll() is None:
            if time.monotonic() > max([began, *self.ended[-1:]]) + PATIENCE:
                self.process.kill()
            time.sleep(0.005)
        moments = [began, *self.ended[before:]]
        return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)

    def end(self) -> str:
        """Wait for its end; gives what it said of its failure."""
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.seek(0)
        said = self.errors.read()
        self.errors.close()
        return said


def tables_of(folder: Path) -> dict[str, bytes]:
    """The bits of each file of a run but its clock, without what compression does to them."""
    found = {}
    for path in sorted(folder.rglob("*.parquet")):
        if path.name != "timing.parquet":
            columns = pq.read_table(path).combine_chunks().columns
            buffers = [buffer for column in columns for chunk in column.chunks for buffer in chunk.buffers()]
            found[str(path.relative_to(folder))] = b"".join(
                b"" if one is None else bytes(one) for one in buffers
            )
    return found


def differing_bits(left: dict[str, bytes], right: dict[str, bytes]) -> int:
    """Bits in which two runs differ; all bits of a file that only one of them has."""
    count = 0
    for name in left.keys() | right.keys():
        mine, other = left.get(name, b""), right.get(name, b"")
        count += 8 * abs(len(mine) - len(other))
        count += sum((a ^ b).bit_count() for a, b in zip(mine, other, strict=False)) if mine != other else 0
    return count


def unleash(kills: int, seed: int, folder: Path, say: Any = lambda line: None) -> Ledger:
    """Kill so often; gives what became of the runs.

    Args:
        kills: their number.
        seed: of victims and moments.
        folder: of runs and of the cluster's sockets, with a short path.
        say: called with a line for each kill and each run.
    """
    dice, ledger = random.Random(seed), Ledger()
    with cluster(folder / "ray", NODES) as ray:
        while ledger.kills < kills and not ledger.failures:
            settings = {**COMMON, **RUNS[ledger.runs % len(RUNS)]}
            expected = simulate(
                Experiment().with_values(settings),
                engine=LocalEngine(),
                out=folder / f"expected-{ledger.runs}",
            )
            assert expected.folder is not None
            out = folder / f"run-{ledger.runs}"
            found = _disturbed(ray, settings, out, kills, dice, ledger, say)
            if found is not None:
                bits = differing_bits(tables_of(Path(str(expected.folder))), tables_of(found))
                ledger.differing, ledger.runs = ledger.differing + bits, ledger.runs + 1
                say(f"run {ledger.runs}: {bits} differing bits")
    return ledger


def _disturbed(
    ray: RayCluster,
    settings: dict[str, Any],
    out: Path,
    kills: int,
    dice: random.Random,
    ledger: Ledger,
    say: Any,
) -> Path | None:
    """Play one run while processes are killed; gives its folder."""
    driver = Driver(ray, {"out": str(out), "settings": settings})
    driver.pause(1, time.monotonic())
    while driver.process.poll() is None:
        if ledger.kills < kills:
            time.sleep(dice.uniform(*PAUSE))
            kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
            began = time.monotonic()
            if driver.process.poll() is not None or not _kill(kind, ray, driver, dice):
                continue
            if kind == "driver":
                driver.end()
                (stopped,) = out.iterdir()
                if open_run(stopped).is_complete:  # it was killed on its way out
                    return stopped
                driver = Driver(ray, {"out": "", "settings": settings, "stopped": str(stopped)})
            # What was lost is missed in the next batch at the latest.
            ledger.recoveries[kind].append(driver.pause(3 * (settings["run.rounds"] + 1), began))
            say(f"kill {ledger.kills}: {kind}, {ledger.recoveries[kind][-1]:.1f} s")
            if kind == "raylet":
                ray.rejoin(NODES)
        else:
            time.sleep(0.05)
    said = driver.end()
    if not driver.done:
        ledger.failures.append(said)
        return None
    return Path(json.loads(driver.done)["run"])


def _kill(kind: str, ray: RayCluster, driver: Driver, dice: random.Random) -> bool:
    """Kill -9 one process of a kind; false if there is none just now."""
    if kind == "driver":
        driver.process.kill()
        return True
    if kind == "raylet":
        alive = [node for node in ray.nodes[1:] if node.process.poll() is None]
        try:
            dice.choice(alive).raylet().kill()
        except (psutil.Error, RuntimeError):  # it is just ending, or starting
            return False
        return True
    title = "ray::TokenActor" if kind == "actor" else "ray::Hub"
    victims = sorted(process.pid for node in ray.nodes for process in node.workers(title))
    if not victims:
        return False
    try:
        os.kill(dice.choice(victims), 9)
    except ProcessLookupError:  # it ended by itself
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tf-", dir="/tmp") as folder:
        ledger = unleash(given.kills, given.seed, Path(folder), lambda line: print(line, flush=True))
    Console().print(ledger.table())
    print(f"{time.monotonic() - began:.0f} s")
    for failure in ledger.failures:
        print(failure, file=sys.stderr)
    sys.exit(1 if ledger.failures or ledger.differing else 0)


if __name__ == "__main__":
    main()
