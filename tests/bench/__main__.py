"""How close a round on literal Ray actors is to what Ray can do, what it costs in process; beliefs; training.

All are measured in turn, several times, in one run; the table gives medians and ratios.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.step import Sent
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.environment import prepare
from runner.engines.local import LocalEngine
from tests.bench import belief, training

prepare()

import ray  # noqa: E402  (reads its environment when imported)

from runner.engines.ray import RayEngine  # noqa: E402


@ray.remote(num_cpus=0)
class Echo:
    """An actor that does nothing: the ceiling of what calls cost."""

    def call(self, payload: Any) -> Any:
        """Give back what came."""
        return payload


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    experiment = Experiment().with_values(
        {
            "task.tokens": options.tokens,
            "task.prompts": options.prompts,
            "run.rounds": options.rounds,
            "channel.noise": 1.0,
            "channel.bits": 16,
        }
    )
    built, prompts = build(experiment), range(options.prompts)
    system, mixing = built.system, built.mixing
    engine, local = RayEngine(), LocalEngine()

    def on_ray() -> None:
        for _ in engine.play(system, mixing, prompts):
            pass

    def in_process() -> None:
        for _ in local.play(system, mixing, prompts):
            pass

    on_ray()  # starts the actors
    echoes = [Echo.remote() for _ in range(options.tokens)]  # type: ignore[attr-defined]
    shape = (1, 1, options.prompts)
    payload = ray.put(Sent(np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)))
    ray.get([echo.call.remote(payload) for echo in echoes])

    def raw_calls() -> None:
        for _ in range(options.rounds):
            told = [echo.call.remote(payload) for echo in echoes]
        ray.get(told)

    measured: dict[str, list[float]] = {"raw 1:N calls": [], "tokens on Ray": [], "tokens in process": []}
    for _ in range(options.repeats):
        measured["raw 1:N calls"].append(seconds(raw_calls))
        measured["tokens on Ray"].append(seconds(on_ray))
        measured["tokens in process"].append(seconds(in_process))
    engine.close()
    ceiling = median(measured["raw 1:N calls"])
    table = Table("", "ms a round", "token-rounds / s", "of the raw ceiling")
    for name, times in measured.items():
        middle = median(times)
        table.add_row(
            name,
            f"{1e3 * middle / options.rounds:.2f}",
            f"{options.tokens * options.rounds / middle:,.0f}",
            f"{100 * ceiling / middle:,.0f} %",
        )
    Console().print(table)
    Console().print(belief.measure(repeats=options.repeats))
    training.show(repeats=options.repeats)


if __name__ == "__main__":
    main()
