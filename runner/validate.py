"""What is handed in from Python, and no experiment file can hold: a graph, a policy, weights, prompts."""

from collections.abc import Collection, Iterator
from os import PathLike
from pathlib import Path

import networkx as nx
import numpy as np

from agents.policies.base import Checked, Policy
from agents.policies.learned import Affine, Learned
from agents.prior import Prior
from analysis.traces.location import Location, Place, place
from runner.config.experiment import Experiment, parse
from runner.engines import Engine
from runner.errors import UnreadableError, UsageError, expect

_MOST_PROMPTS = 2**31  # the tables of a run number them with 32 bits
_Expected = tuple[str, object, tuple[int, ...]]  # name, array, shape


def validate_experiment(experiment: object) -> None:
    """Refuse what is no experiment, or was made one past its checks.

    Raises:
        UsageError: naming the keys, or the type that was given.
    """
    possible = "an Experiment, for example Experiment().with_values({'run.rounds': 3})"
    expect("experiment", experiment, Experiment, possible)
    assert isinstance(experiment, Experiment)
    parse(type(experiment), experiment.model_dump(warnings=False))


def validate_trace(experiment: Experiment) -> None:
    """Refuse to keep what there is not.

    Raises:
        UsageError: naming the keys.
    """
    sizes = {"rounds": experiment.run.rounds + 1, "positions": experiment.task.tokens}
    errors = [
        UsageError(f"trace.{noun}", max(kept), f"{noun} from 0 to {size - 1}")
        for noun, size in sizes.items()
        if (kept := getattr(experiment.trace, noun)) and max(kept) >= size
    ]
    if errors:
        raise UsageError.of(errors)


def validate_traced(experiment: Experiment, prompts: range) -> None:
    """Refuse to keep prompts that are not played.

    Raises:
        UsageError: naming the first of them.
    """
    for prompt in experiment.trace.prompts or ():
        if prompt not in prompts:
            possible = f"prompts from {prompts.start} to {prompts.stop - 1}, which are played"
            raise UsageError("trace.prompts", prompt, possible)


def validate_graph(graph: object) -> None:
    """Refuse what is no graph of networkx, or has no node.

    Raises:
        UsageError: with the type that was given.
    """
    possible = "a networkx graph with as many nodes as there are tokens"
    expect("graph", graph, nx.Graph, possible, _by_name("graph.kind", graph))
    if isinstance(graph, nx.Graph) and not len(graph):
        raise UsageError("graph", graph, possible)


def validate_prompts(prompts: object) -> None:
    """Refuse prompts that cannot be numbered, or are none.

    Raises:
        UsageError: saying which are possible.
    """
    valid = isinstance(prompts, range) and prompts.step == 1 and 0 <= prompts.start < prompts.stop
    if not (valid and isinstance(prompts, range) and prompts.stop <= _MOST_PROMPTS):
        possible = f"range(first, last + 1) of one prompt or more, from 0 to {_MOST_PROMPTS - 1}"
        raise UsageError("prompts", prompts, possible)


def validate_prior(prior: object) -> None:
    """Refuse what is no prior.

    Raises:
        UsageError: with what was given.
    """
    possible = "a Prior, for example agents.prior.gaussian(7)"
    expect("prior", prior, Prior, possible, _by_name("prior.kind", prior))


def validate_engine(engine: object) -> None:
    """Refuse what is no engine.

    Raises:
        UsageError: with what was given.
    """
    possible = "an engine, for example LocalEngine() or RayEngine()"
    expect("engine", engine, Engine, possible, _by_name("run.engine", engine))


def validate_path(key: str, path: object) -> None:
    """Refuse what is no path.

    Raises:
        UsageError: with what was given.
    """
    expect(key, path, (str, PathLike), "the path of a folder, as a string or a pathlib.Path")


def named_place(key: str, path: object) -> Place:
    """The folder of a path, or of a URI on shared storage.

    Raises:
        UsageError: with what was given.
    """
    expect(key, path, (str, PathLike, Location), "the path of a folder, or the URI of one on shared storage")
    try:
        return place(path)  # type: ignore[arg-type]
    except UnreadableError as failure:
        raise UsageError(key, str(path), f"a path, or a URI as s3://bucket/runs ({failure})") from None


def local_place(key: str, path: object) -> Path:
    """The folder or file of a path, on this machine.

    Raises:
        UsageError: if it is a URI of something elsewhere, or no path.
    """
    found = named_place(key, path)
    if isinstance(found, Location):
        raise UsageError(key, str(found), "a path on this machine; only runs are stored elsewhere, by `run`")
    return found


def validate_called(**functions: object) -> None:
    """Refuse what is called as rounds end and cannot be, by argument; None stands for nothing.

    Raises:
        UsageError: with what was given.
    """
    for key, function in functions.items():
        if function is not None and not callable(function):
            raise UsageError(key, function, "a function of two arguments, or None")


def validate_policy(policy: object, rounds: int, tokens: int, batches: Collection[range] = ()) -> None:
    """Refuse what is no policy, or one that says that it does not fit.

    Args:
        policy: what would be played.
        rounds: L.
        tokens: N.
        batches: prompts that are played together, batch by batch; none where they are not known yet.

    Raises:
        UsageError: all that does not fit.
    """
    possible = "a policy, for example build(experiment).policy"
    expect("policy", policy, Policy, possible, _by_name("policy.kind", policy))
    if not isinstance(policy, Checked):
        return
    sizes: list[int | None] = [*sorted({len(batch) for batch in batches})] or [None]
    for prompts in sizes:
        advice = f"Prompts are played {prompts:,} at a time: see run.batch" if len(batches) > 1 else ""
        wrong = [
            UsageError(f"policy.{mistake.key}", mistake.given, mistake.possible, advice)
            for mistake in policy.mistakes(rounds, tokens, prompts)
        ]
        if wrong:
            raise UsageError.of(wrong)


def validate_learned(learned: object, dim: int, channels: int, rounds: int) -> None:
    """Refuse weights that do not fit the experiment or each other, or are not finite.

    Args:
        learned: what was handed in.
        dim: d of the experiment.
        channels: K of the experiment.
        rounds: L of the experiment.

    Raises:
        UsageError: all arrays that do not fit, with the shapes that would.
    """
    if not isinstance(learned, Learned):
        possible = "the weights of a learned policy, for example agents.transformer.export.export(model)"
        raise UsageError("learned", learned, possible)
    if learned.channels != channels:
        possible = f"{learned.channels}, the heads of the weights that were handed in"
        raise UsageError("channel.channels", channels, possible)
    if len(learned.layers) != rounds:
        possible = f"{len(learned.layers)}, the number of layers of the weights that were handed in"
        raise UsageError("run.rounds", rounds, possible)
    errors = []
    for name, array, shape in _arrays(learned, dim):
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "fiu":
            given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else array
            errors.append(UsageError(f"learned.{name}", given, f"real numbers {shape}"))
        elif not np.isfinite(array).all():
            errors.append(UsageError(f"learned.{name}", "values that are not finite", "finite numbers"))
    if errors:
        raise UsageError.of(errors)


def _by_name(key: str, given: object) -> str:
    """What to do with a name, which an experiment takes."""
    if not isinstance(given, str):
        return ""
    return f"A name stands in an experiment: with_values({{{key!r}: {given!r:.100}}})"


def _arrays(learned: Learned, dim: int) -> Iterator[_Expected]:
    """Name, array and expected shape of all weights: W is that of the first vector."""
    width, heads = len(learned.start_vector), learned.channels

    def affine(name: str, weights: Affine, rows: int, columns: int) -> Iterator[_Expected]:
        yield f"{name}.weight", weights.weight, (rows, columns)
        yield f"{name}.bias", weights.bias, (rows,)

    yield "start_vector", learned.start_vector, (width,)
    yield "readout", learned.readout, (dim, width)
    for index, layer in enumerate(learned.layers):
        yield from affine(f"layers[{index}].query", layer.query, heads * dim, width)
        yield from affine(f"layers[{index}].emission", layer.emission, heads, width)
        columns = width + heads
        for step, update in enumerate(layer.update):
            last = step == len(layer.update) - 1
            rows = width if last else len(update.bias)
            yield from affine(f"layers[{index}].update[{step}]", update, rows, columns)
            columns = rows
        if not layer.update:
            yield f"layers[{index}].update", None, (width, columns)
