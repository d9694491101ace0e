"""What is handed in from Python, and no experiment file can hold: a graph, a policy, weights, prompts."""

from collections.abc import Collection, Iterator

import networkx as nx
import numpy as np

from agents.policies.base import Checked
from agents.policies.learned import Affine, Learned
from runner.config.experiment import Experiment, parse
from runner.errors import UsageError

_MOST_PROMPTS = 2**31  # the tables of a run number them with 32 bits
_Expected = tuple[str, object, tuple[int, ...]]  # name, array, shape


def validate_experiment(experiment: object) -> None:
    """Refuse what is no experiment, or was made one past its checks.

    Raises:
        UsageError: naming the keys, or the type that was given.
    """
    if not isinstance(experiment, Experiment):
        possible = "an Experiment, for example Experiment().with_values({'run.rounds': 3})"
        raise UsageError("experiment", experiment, possible)
    parse(type(experiment), experiment.model_dump(warnings=False))


def validate_graph(graph: object) -> None:
    """Refuse what is no graph of networkx, or has no node.

    Raises:
        UsageError: with the type that was given.
    """
    if not isinstance(graph, nx.Graph) or not len(graph):
        possible = "a networkx graph with as many nodes as there are tokens"
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


def validate_policy(policy: object, rounds: int, tokens: int, batches: Collection[range] = ()) -> None:
    """Refuse a policy that says that it does not fit.

    Args:
        policy: what would be played.
        rounds: L.
        tokens: N.
        batches: prompts that are played together, batch by batch; none where they are not known yet.

    Raises:
        UsageError: all that does not fit.
    """
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
