"""Memory that an experiment takes, before any of it is taken."""

from typing import Literal

from agents.policies import POLICIES
from agents.policies.base import Sizes
from agents.prior import PRIORS, PriorOptions
from analysis.resources import available_memory
from runner.config.experiment import Experiment
from runner.errors import UsageError


def bytes_per_token_prompt(experiment: Experiment) -> int:
    """Memory that one token of one prompt takes at the end of a run, in bytes; an estimate from above.

    What the policy keeps, as its entry says, and the examples with temporaries of a few rows.
    """
    section, transformer, turn = experiment.prior, experiment.transformer, experiment.policy.rounds_per_scale
    prior, options = PRIORS[section.kind], prior_options(experiment)
    policy = POLICIES[experiment.policy.kind]
    numbers = policy.numbers(
        Sizes(
            _law(experiment, prior.rank(options)),
            prior.atoms(options),
            prior.rank(options),
            section.dim,
            experiment.run.rounds,
            experiment.channels,
            turn if policy.theory == "averaging" and isinstance(turn, int) else 1,
            transformer.width + transformer.hidden,
        )
    )
    return 8 * (numbers + 6 * section.dim + 16)


def _law(experiment: Experiment, rank: int) -> Literal["gaussian", "exact", "grouped"]:
    """The law of a field in the belief, as it needs memory."""
    if rank or experiment.policy.belief != "exact":
        return "gaussian"
    return "grouped" if experiment.graph.kind == "complete" else "exact"


def prior_options(experiment: Experiment) -> PriorOptions:
    """What the experiment says of its prior."""
    section = experiment.prior
    return PriorOptions(
        section.levels, section.branching, section.decay, section.dim, section.directions, section.jitter,
        experiment.run.seed,
    )  # fmt: skip


def check_memory(experiment: Experiment) -> None:
    """Refuse what does not fit into the memory that is free.

    Raises:
        UsageError: with the number of tokens or prompts that fit.
    """
    free = available_memory()
    per_token = bytes_per_token_prompt(experiment)
    needed = experiment.task.tokens * per_token + graph_bytes(experiment)
    if needed > free:
        raise UsageError(
            "task.tokens",
            experiment.task.tokens,
            f"up to about {_largest(experiment, free):,} tokens here: one prompt of "
            f"{experiment.task.tokens:,} takes {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free",
        )
    kept = (experiment.run.rounds + 1) * 8  # the risk of a prompt in each round
    if experiment.task.prompts * kept > free:
        possible = f"up to about {free // kept:,} prompts here: their risks alone take {kept} bytes each"
        raise UsageError("task.prompts", experiment.task.prompts, possible)


def graph_bytes(experiment: Experiment) -> int:
    """Memory that the graph takes while it is made, in bytes; an estimate from above."""
    tokens, section = experiment.task.tokens, experiment.graph
    plain = section.mixing == "uniform"
    if section.kind == "complete" and plain:
        return 0
    if section.kind == "causal" and plain and section.window is None:
        return 17 * tokens**2
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
