"""Memory that an experiment takes, before any of it is taken."""

from runner.errors import UsageError, UsageErrors
from runner.experiment import Experiment
from runner.memory import available_memory


def bytes_per_token_prompt(experiment: Experiment) -> int:
    """Memory that one token of one prompt takes at the end of a run, in bytes; an estimate from above.

    A belief keeps, for each atom, a triangle of whitened measurements; beside it stand the inputs, the
    estimates that served as control, and temporaries of a few rows. A flooding token keeps every example,
    and hears a sum for each of its numbers.
    """
    section = experiment.prior
    atoms = section.branching**section.levels if section.kind == "tree" else 1
    rank = section.dim if section.kind != "tree" or section.jitter else 0
    rounds, policy = experiment.run.rounds, experiment.policy
    if policy.kind == "gossip" and isinstance(policy.rounds_per_scale, int):
        rounds = -(-rounds // policy.rounds_per_scale)
    heard = rounds * experiment.channels
    if policy.kind == "learned":
        numbers = 4 * (experiment.transformer.width + experiment.transformer.hidden)
    elif policy.kind in ("gradient", "flood"):
        numbers = 14 * experiment.channels
    else:
        numbers = atoms * (heard * (heard + 5) // 2 + (heard + 2) * rank + 12) + heard * section.dim
    return 8 * (numbers + 6 * section.dim + 16)


def check_memory(experiment: Experiment) -> None:
    """Refuse what does not fit into the memory that is free.

    Raises:
        UsageErrors: with the number of tokens or prompts that fit.
    """
    free = available_memory()
    per_token = bytes_per_token_prompt(experiment)
    needed = experiment.task.tokens * per_token + graph_bytes(experiment)
    if needed > free:
        raise UsageErrors(
            [
                UsageError(
                    "task.tokens",
                    experiment.task.tokens,
                    f"up to about {_largest(experiment, free):,} tokens here: one prompt of "
                    f"{experiment.task.tokens:,} takes {needed / 2**30:.1f} GiB and "
                    f"{free / 2**30:.1f} GiB are free",
                )
            ]
        )
    kept = (experiment.run.rounds + 1) * 8  # the risk of a prompt in each round
    if experiment.task.prompts * kept > free:
        possible = f"up to about {free // kept:,} prompts here: their risks alone take {kept} bytes each"
        raise UsageErrors([UsageError("task.prompts", experiment.task.prompts, possible)])


def graph_bytes(experiment: Experiment) -> int:
    """Memory that the graph takes while it is made, in bytes; an estimate from above."""
    tokens, section = experiment.task.tokens, experiment.graph
    plain = section.mixing == "uniform"
    if section.kind == "complete" and plain:
        return 0
    if section.kind == "causal" and plain and section.window is None:
        return 12 * tokens**2
    edges = {
        "complete": tokens**2,
        "causal": tokens * min(tokens, section.window or tokens),
        "barbell": tokens**2 // 2,
        "erdos_renyi": tokens * section.degree,
        "ring": tokens * section.degree,
        "small_world": tokens * section.degree,
        "random_regular": tokens * section.degree,
    }.get(section.kind, 4 * tokens)
    return 600 * edges  # networkx keeps a dictionary for each edge


def _largest(experiment: Experiment, free: int) -> int:
    """The largest number of tokens that fits, by halving."""
    tokens = experiment.task.tokens
    while tokens > 1:
        tokens //= 2
        smaller = experiment.model_copy(
            update={"task": experiment.task.model_copy(update={"tokens": tokens})}
        )
        if tokens * bytes_per_token_prompt(smaller) + graph_bytes(smaller) <= free:
            break
    return tokens
