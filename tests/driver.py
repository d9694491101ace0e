"""A simulation in a process of its own, which says what round it is in: `python -m tests.driver JSON`.

It prints a line for each round as it ends, then one with the risk. Given are address (or none, for a cluster
of its own, or "local" for none at all), out, settings, or the folder of a run that is resumed.
"""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.config.experiment import Experiment
from runner.engines import Engine
from runner.engines.local import LocalEngine
from runner.errors import RunError
from runner.simulation.resume import resume
from runner.simulation.simulate import open_engine, simulate


def say(*words: Any) -> None:
    print(*words, flush=True)


def engine_of(experiment: Experiment, address: str | None) -> Engine:
    return LocalEngine() if address == "local" else open_engine(experiment, address)


def main(address: str | None, out: str, settings: dict[str, Any], stopped: str | None = None) -> None:
    experiment = Experiment().with_values({"run.engine": "ray", **settings})
    with closing(engine_of(experiment, address)) as engine:
        say("up")

        def watch(prompts: range, round: int) -> None:
            say("round", prompts.start, round)

        if stopped is None:
            done = simulate(experiment, engine=engine, out=out, on_round=watch)
        else:
            done = resume(Path(stopped), engine=engine, on_round=watch)
        say("done", json.dumps({"run": str(done.folder), "risk": done.prompt_risk.tolist()}))


if __name__ == "__main__":
    try:
        main(**json.loads(sys.argv[1]))
    except (
        RunError
    ) as failure:  # as the command line does: Ray's own hook would ask a cluster that may be gone
        print(failure, file=sys.stderr, flush=True)
        sys.exit(1)
