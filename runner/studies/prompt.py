"""One prompt of a stored run, from its trace, or played again to the same bits."""

import tempfile
from typing import NamedTuple

import pandas as pd

from analysis.traces.reader import Run, open_run
from analysis.traces.schema import SCHEMAS
from runner.config.experiment import Experiment, TraceSection
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.source import fingerprint


class Traced(NamedTuple):
    """All that happened in one prompt.

    Attributes:
        prompt: its index.
        messages: its rows of the table; without any where nothing is sent.
        workspaces: its rows of the table.
        nodes: position and name.
        truth: its rows of the table of the truth; none in runs that are older than that table.
        again: whether it was played again.
    """

    prompt: int
    messages: pd.DataFrame
    workspaces: pd.DataFrame
    nodes: pd.DataFrame
    truth: pd.DataFrame
    again: bool


def trace_of(run: Run, prompt: int) -> Traced:
    """What happened in a prompt: from the trace if it holds all of it, else simulated again.

    Args:
        run: stored.
        prompt: one that it played.

    Raises:
        UsageError: if it played no such prompt; or if it was not traced, and objects that are not stored were
            handed to the run, or other code played it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     few = {"task.prompts": 40, "task.tokens": 4, "run.trace": "sampled"}
        ...     run = open_run(simulate(Experiment().with_values(few), out=folder).folder)
        ...     trace_of(run, 3).again, trace_of(run, 30).again
        (False, True)
    """
    first, stop = run.manifest["prompts"]
    if not first <= prompt < stop:
        raise UsageError("--prompt", prompt, f"{first} to {stop - 1}, which the run has")
    if _is_traced(run, prompt):
        return _read(run, prompt, again=False)
    if run.needs_objects:
        possible = "a prompt that was traced; this one is not, and objects were handed in that are not stored"
        raise UsageError("--prompt", prompt, possible)
    if run.manifest["code"] != fingerprint():
        possible = (
            f"a prompt that was traced; this one is not, and other code played the run than {fingerprint()}"
        )
        raise UsageError("--prompt", prompt, possible)
    experiment = Experiment.model_validate(run.manifest["experiment"])
    whole = experiment.with_values({"run.trace": "full"}).model_copy(update={"trace": TraceSection()})
    with tempfile.TemporaryDirectory() as folder:
        played = simulate(whole, engine=LocalEngine(), out=folder, prompts=range(prompt, prompt + 1))
        return _read(open_run(str(played.folder)), prompt, again=True)


def _is_traced(run: Run, prompt: int) -> bool:
    """Whether every message and workspace of the prompt is in the trace."""
    trace = run.manifest["experiment"].get("trace", {})
    if run.experiment.run.trace not in ("sampled", "full") or any(
        trace.get(key) is not None for key in ("rounds", "positions", "columns")
    ):
        return False
    if trace.get("every", 1) != 1:
        return False
    there = run.table("workspaces", prompts=[prompt], positions=[0], columns=["round"])["round"]
    return set(there) == set(range(run.experiment.run.rounds + 1))


def _read(run: Run, prompt: int, again: bool) -> Traced:
    sends = run.experiment.run.rounds > 0
    workspaces = run.table("workspaces", prompts=[prompt])
    messages = (
        run.table("messages", prompts=[prompt]) if sends else pd.DataFrame(columns=SCHEMAS["messages"].names)
    )
    old = run.manifest["schema"] < 3
    truth = pd.DataFrame({"prompt": [], "atom": []}) if old else run.table("truths", prompts=[prompt])
    return Traced(prompt, messages, workspaces, run.nodes, truth, again)
