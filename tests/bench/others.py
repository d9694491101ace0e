"""Beside Mesa, an agent framework of Python; what a full trace costs; training beside a plain loop."""

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from agents.step import Sent, draw_block, step
from analysis import open_run
from analysis.resources import available_cores
from runner import sweep
from runner.config.experiment import Experiment
from runner.engines.base import rows_of, some_rows, summed
from runner.engines.local import LocalEngine
from runner.simulation.simulate import simulate
from runner.storage.files import write_table
from tests.bench import training
from tests.bench.loops import built, played
from tests.bench.table import Row, compared, medians

_RING: dict[str, object] = {
    "graph.kind": "ring", "graph.degree": 4, "policy.repeats": 0.0, "policy.order": "level",
}  # fmt: skip


def measure(repeats: int) -> Iterator[Row]:
    """All rows."""
    if find_spec("mesa") is not None:
        yield from _mesa(repeats)
    yield from _trace(repeats)
    yield from _sweep(repeats)
    for name, row in training.measure(repeats=repeats).items():
        beside = row["seconds"] * row["ratio_to_plain"]
        yield Row(f"training, {name}", "trainer", "plain loop", 1e3 * row["seconds"], 1e3 * beside,
                  row["ratio_to_plain"])  # fmt: skip


def _mesa(repeats: int) -> Iterator[Row]:
    """The same work by an agent for each token: bare averaging, and the whole protocol."""
    from mesa import Agent, Model

    class Averaging(Agent):  # type: ignore[misc]
        def __init__(self, model: Any, value: np.ndarray, heard: np.ndarray) -> None:
            super().__init__(model)
            self.value, self.heard, self.next = value, heard, value

        def hear(self) -> None:
            tokens = self.model.tokens
            self.next = sum(tokens[j].value for j in self.heard) / len(self.heard)

        def settle(self) -> None:
            self.value = self.next

    tokens, prompts = 4096, 256
    given = built(tokens, prompts, 1, **_RING)
    rows = rows_of(given.mixing)
    heard = [rows.senders[rows.starts[i] : rows.starts[i + 1]] for i in range(tokens)]
    values = np.random.default_rng(0).normal(size=(tokens, prompts))
    model = Model()
    model.tokens = [Averaging(model, values[i], heard[i]) for i in range(tokens)]

    def by_agents() -> None:
        model.agents.do("hear")
        model.agents.do("settle")

    shape = (tokens, 1, prompts)
    sent = Sent(np.zeros(shape, np.int64), values.astype(np.int64)[:, None])
    everyone, shares = np.arange(tokens), given.mixing.shares()
    seconds = medians(
        {
            "sums of integers": lambda: summed(rows, everyone, sent, 1),
            "Mesa": by_agents,
            "sparse product of scipy": lambda: shares @ values,
        },
        repeats,
    )
    work = "averaging on a ring of degree 4, N = 4,096, 256 prompts"
    yield compared(work, seconds, "sums of integers", "Mesa")
    yield compared(work, seconds, "sums of integers", "sparse product of scipy")
    yield from _protocol(repeats)


def _protocol(repeats: int) -> Iterator[Row]:
    """Level by level on a ring: an agent steps each token, with the very code of a token."""
    from mesa import Agent, Model

    tokens, prompts, rounds = 256, 64, 4
    given = built(tokens, prompts, rounds, **_RING)
    system, rows = given.system, rows_of(given.mixing)

    class Token(Agent):  # type: ignore[misc]
        def __init__(self, model: Any, position: int) -> None:
            super().__init__(model)
            self.rows, self.heard = some_rows(rows, np.array([position]))
            self.block = draw_block(system, np.array([position]), range(prompts))
            self.now = self.next = step(system, self.block, None, None, None, 0)

        def hear(self) -> None:
            near = [self.model.tokens[j].now.sent for j in self.heard]
            sent = Sent(*(np.concatenate([one[part] for one in near]) for part in range(2)))
            sums = summed(self.rows, np.zeros(1, dtype=np.int64), sent, system.policy.codes)
            self.next = step(system, self.block, self.now.state, self.now.sent, sums, self.model.round)

        def settle(self) -> None:
            self.now = self.next

    def by_agents() -> None:
        model = Model()
        model.tokens = [Token(model, position) for position in range(tokens)]
        for round in range(1, rounds + 1):
            model.round = round
            model.agents.do("hear")
            model.agents.do("settle")

    ways: dict[str, Callable[[], object]] = {
        "in process": played(given, LocalEngine(), prompts), "Mesa": by_agents,
    }  # fmt: skip
    work = f"whole protocol on a ring, N = {tokens}, {prompts} prompts, a round"
    yield compared(work, medians(ways, repeats), "in process", "Mesa", per=rounds + 1)


def _trace(repeats: int) -> Iterator[Row]:
    """A run whose every message and workspace is stored, beside one of which nothing is; and the files."""
    tokens, prompts, rounds = 64, 2000, 8
    stored = built(tokens, prompts, rounds, **{"run.trace": "full"})

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            simulate(stored, out=folder)

    seconds = medians({"a full trace": write, "no trace": lambda: simulate(stored)}, repeats)
    work = f"N = {tokens}, L = {rounds}, {prompts:,} prompts"
    yield compared(work, seconds, "a full trace", "no trace", 0.8)
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(simulate(stored, out=folder).folder or "")
        frame = run.messages
        size = sum(path.stat().st_size for path in Path(str(run.folder)).glob("messages/*"))
        plain = Path(folder) / "plain.parquet"
        ways: dict[str, Callable[[], object]] = {
            "open_run": lambda: open_run(run.folder).messages, "pandas": lambda: pd.read_parquet(plain),
            "write_table": lambda: write_table(Path(folder) / "ours.parquet", pa.Table.from_pandas(frame)),
            "to_parquet": lambda: frame.to_parquet(plain),
        }  # fmt: skip
        frame.to_parquet(plain)
        seconds = medians(ways, repeats)
        million = len(frame) / seconds["open_run"] / 1e6
        remark = f"{million:.1f} million rows a second"
        yield compared("reading the messages", seconds, "open_run", "pandas", remark=remark)
        remark = f"{size / len(frame):.1f} bytes a message, {plain.stat().st_size / len(frame):.1f} beside"
        yield compared("writing the messages", seconds, "write_table", "to_parquet", remark=remark)


def _sweep(repeats: int) -> Iterator[Row]:
    """A sweep of forty points: kept one by one, in one table; beside the simulations alone."""
    set_, grid = (
        {"task.prompts": 1000, "task.tokens": 64},
        {"channel.noise": [index / 20 for index in range(40)]},
    )
    points = [Experiment().with_values({**set_, "channel.noise": noise}) for noise in grid["channel.noise"]]

    def swept(engine: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            sweep(set=set_, grid=grid, out=folder, engine=engine)  # type: ignore[arg-type]

    def alone() -> None:
        for point in points:
            simulate(point, engine=LocalEngine(threads=1))

    ways = {"in process": lambda: swept("local"), "on Ray": lambda: swept("ray"), "simulations": alone}
    seconds = medians(ways, repeats)
    share = seconds["simulations"] / seconds["in process"]
    remark = f"{100 * (1 / share - 1):.0f} % over the simulations"
    yield compared("a sweep of 40 points", seconds, "in process", "simulations", 0.9, remark=remark)
    cores = available_cores()
    start = f"with Ray's start; {seconds['on Ray'] * cores / seconds['simulations']:.2f} of them by core"
    yield compared("the same", seconds, "on Ray", "simulations", remark=start)
