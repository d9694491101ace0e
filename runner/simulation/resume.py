"""Resume a run that was stopped: the batches that it lacks, to the same bits."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agents.policies import Policy
from agents.policies.learned import Learned
from agents.prior import Prior
from analysis.traces.location import Place
from runner.built import build
from runner.engines import Engine
from runner.errors import RunError, UnreadableError, UsageError
from runner.simulation.simulate import Simulation, check_policy, opened, play
from runner.storage.manifest import Batches, read_stopped, weights_digest
from runner.storage.writer import TraceWriter, check_room
from runner.validate import named_place, validate_called, validate_engine

if TYPE_CHECKING:
    import networkx as nx


def resume(
    folder: Place | str,
    *,
    engine: Engine | None = None,
    graph: "nx.Graph[Any] | None" = None,
    learned: Learned | None = None,
    prior: Prior | None = None,
    policy: Policy[Any] | None = None,
    on_round: Callable[[range, int], None] | None = None,
) -> Simulation:
    """Play what a stopped run still lacks; its tables end as if it had never been stopped.

    Args:
        folder: of the run, or its URI.
        engine: where to play the rest; by default what the experiment names.
        graph: the graph that was handed to `simulate`, if one was.
        learned: the weights that were handed to it, if they were.
        prior: the prior that was handed to it, if one was.
        policy: the policy that was handed to it, if one was; its type is checked, not what it holds.
        on_round: told (batch of prompts, round) as rounds end.

    Raises:
        UsageError: if the run came to its end, or graph, weights or code are not those it began with.
        RunError: if it fails again, or what it kept is damaged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from runner import Experiment, simulate
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
    where = named_place("folder", folder)
    validate_called(on_round=on_round)
    if engine is not None:
        validate_engine(engine)
    experiment, manifest = read_stopped(where)
    if manifest.get("engine") == "altered":
        possible = "a run whose messages were not altered on their way: by what is not stored"
        raise UsageError("folder", str(where), possible, "Run it anew")
    built = build(experiment, graph, learned, prior=prior, policy=policy)
    start, stop = manifest["prompts"]
    batches = Batches(range(start, stop), manifest["batch"], weights_digest(learned))
    began = manifest.get("handed_in", {})
    nodes = built.nodes.digest() if built.nodes else None
    for name, noun, given, first in (
        ("graph", "graph", built.mixing.digest().hex(), manifest["mixing"]),
        ("graph", "names and attributes of nodes", nodes, manifest.get("nodes")),
        ("learned", "weights", batches.weights, manifest["weights"]),
        ("prior", "prior", built.handed_in.get("prior"), began.get("prior")),
        ("policy", "policy", built.handed_in.get("policy"), began.get("policy")),
    ):
        if given != first:
            possible = f"the {noun} that the run began with ({first})"
            advice = f"Hand it in: runner.resume(folder, {name}=...)"
            raise UsageError(name, given, possible, advice)
    check_policy(built, batches)
    check_room(experiment, where)
    try:
        with opened(engine, experiment) as playing:
            writer = TraceWriter(where, built, playing.name, batches)
            return play(built, playing, batches, writer, None, on_round)
    except UnreadableError as failure:
        raise RunError(f"{failure}. Start the run anew: what was kept of it cannot be trusted") from None
