"""Go on with a run that was stopped: the batches that it lacks, to the same bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agents.policies.learned import Learned
from runner.arrays import Unreadable
from runner.assembly import check, mixing_for, prior_of, system_of
from runner.course import Course, weights_digest
from runner.engine import Engine
from runner.errors import RunFailed, UsageError, UsageErrors
from runner.experiment import Experiment
from runner.record import TraceWriter, check_room
from runner.simulation import Simulation, engine_of, play
from runner.source import fingerprint
from runner.tables import digest_of

if TYPE_CHECKING:
    import networkx as nx


def stopped_experiment(folder: Path | str) -> Experiment:
    """The experiment of a run that was stopped.

    Raises:
        UsageErrors: if there is none, or it came to its end, or other code played it.
    """
    return _read(Path(folder))[0]


def resume(
    folder: Path | str,
    *,
    engine: Engine | None = None,
    graph: "nx.Graph[Any] | None" = None,
    learned: Learned | None = None,
    on_round: Callable[[range, int], None] | None = None,
) -> Simulation:
    """Play what a stopped run still lacks; its tables end as if it had never been stopped.

    Args:
        folder: of the run.
        engine: where to go on; by default what the experiment names.
        graph: the graph that was handed to `simulate`, if one was.
        learned: the weights that were handed to it, if they were.
        on_round: told (batch of prompts, round) as rounds end.

    Raises:
        UsageErrors: if the run came to its end, or graph, weights or code are not those it began with.
        RunFailed: if it fails again, or what it kept is damaged.

    Example:
        >>> import tempfile
        >>> from runner.simulation import simulate
        >>> experiment = Experiment().with_values({"task.prompts": 60, "task.tokens": 8, "run.batch": 20})
        >>> def stop(prompts: range, round: int) -> None:
        ...     if prompts.start == 40:
        ...         raise KeyboardInterrupt
        >>> with tempfile.TemporaryDirectory() as out:
        ...     try:
        ...         simulate(experiment, out=out, on_round=stop)
        ...     except KeyboardInterrupt:
        ...         run, = Path(out).iterdir()
        ...         resumed = resume(run)
        >>> bool((resumed.risk == simulate(experiment).risk).all())
        True
    """
    folder = Path(folder)
    experiment, manifest = _read(folder)
    check(experiment, graph)
    mixing = mixing_for(experiment, graph)
    start, stop = manifest["prompts"]
    course = Course(range(start, stop), manifest["batch"], weights_digest(learned))
    for name, given, began in (
        ("graph", mixing.digest().hex(), manifest["mixing"]),
        ("learned", course.weights, manifest["weights"]),
    ):
        if given != began:
            possible = f"the {'weights' if name == 'learned' else name} that the run began with ({began})"
            advice = "Hand them in: runner.resume(folder, graph=..., learned=...)"
            raise UsageErrors([UsageError(name, given, possible, advice)])
    system = system_of(experiment, prior_of(experiment), mixing, learned)
    check_room(experiment, folder)
    owned = engine is None
    engine = engine or engine_of(experiment)
    try:
        writer = TraceWriter(folder, experiment, mixing, system.policy.codes, engine.name, course)
        return play(experiment, system, mixing, engine, course, writer, None, on_round)
    except Unreadable as failure:
        raise RunFailed(f"{failure}. Start the run anew: what was kept of it cannot be trusted") from None
    finally:
        if owned:
            engine.close()


def _read(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    def refuse(possible: str, advice: str = "") -> UsageErrors:
        return UsageErrors([UsageError("RUN", str(folder), possible, advice)])

    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(manifest["experiment"])
        status, code = manifest["status"], manifest["code"]
        course = [*manifest["prompts"], manifest["batch"]]
        sound = {"mixing", "weights"} <= set(manifest) and [type(number) for number in course] == [int] * 3
        sound &= manifest["digest"] == digest_of(manifest)
    except (OSError, ValueError, TypeError, KeyError, ValidationError):
        sound = False
    if not sound:
        raise refuse("the folder of a run, with a manifest.json that can be read")
    if status == "complete":
        raise refuse("a run that was stopped; this one came to its end")
    if code != fingerprint():
        advice = "Go on with that version, or start the run anew"
        raise refuse(f"a run of this code, {fingerprint()}; this one is of {code}", advice)
    return experiment, manifest
