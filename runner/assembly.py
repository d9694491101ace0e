"""From an Experiment to the objects that run: prior, policy, channel, system, mixing.

Here is checked what no single key can tell: combinations that cannot run are refused, before anything
starts, with the key to change.
"""

from pathlib import Path
from typing import Any

from agents.belief import Inference
from agents.channel import Channel
from agents.codebook import Codebook, pooled, principal
from agents.policies.adaptive import Adaptive
from agents.policies.learned import Learned
from agents.policies.static import Static, in_turn, open_loop
from agents.policy import Policy
from agents.prior import Prior, axes_needed, gaussian, matched_gaussian, tree
from agents.token import System
from runner.errors import UsageError, UsageErrors
from runner.experiment import Experiment
from runner.memory import available_memory
from topology.families import FAMILIES, Family, Graph
from topology.files import read_graph
from topology.mixing import Mixing, mixing_of, weigh

_LARGEST_MIXTURE = 4096


def prior_of(experiment: Experiment) -> Prior:
    """The prior of [prior], its directions addressed by run.seed.

    Raises:
        UsageErrors: if a tree has too many leaves, or its orthonormal directions do not fit into dim.
    """
    check_prior(experiment)
    section = experiment.prior
    if section.kind == "gaussian":
        return gaussian(section.dim)
    hierarchical = tree(
        section.levels,
        section.branching,
        section.decay,
        section.dim,
        section.directions,
        section.jitter,
        experiment.run.seed,
    )
    return matched_gaussian(hierarchical) if section.kind == "matched_gaussian" else hierarchical


def check_prior(experiment: Experiment) -> None:
    """Refuse a tree that is too large, or that does not fit into its space.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    section = experiment.prior
    if section.kind == "gaussian":
        return
    leaves = section.branching**section.levels
    if leaves > _LARGEST_MIXTURE:
        possible = f"branching ** levels up to {_LARGEST_MIXTURE} leaves, this is {leaves}"
        raise UsageErrors([UsageError("prior.levels", section.levels, possible)])
    needed = axes_needed(section.levels, section.branching)
    if section.directions == "orthonormal" and section.dim < needed:
        possible = (
            f"{needed} or more for orthonormal directions with levels = {section.levels} and "
            f"branching = {section.branching}"
        )
        advice = 'Raise prior.dim, or set prior.directions = "random"'
        raise UsageErrors([UsageError("prior.dim", section.dim, possible, advice)])


def channel_of(experiment: Experiment) -> Channel:
    """The channel of [channel]."""
    section = experiment.channel
    return Channel(section.channels, section.bits, section.clip, section.noise)


def codebook_of(experiment: Experiment, prior: Prior) -> Codebook:
    """The codebook that the policy asks about.

    Raises:
        UsageErrors: if a message has more channels than there are codes.
    """
    section = experiment.policy
    book = pooled(prior) if section.kind == "static" and section.order == "pooled" else principal(prior)
    if experiment.channel.channels > len(book):
        raise UsageErrors(
            [
                UsageError(
                    "channel.channels",
                    experiment.channel.channels,
                    f"1 to {len(book)}, the number of codes of this policy",
                )
            ]
        )
    return book


def graph_of(experiment: Experiment) -> Graph:
    """The locality graph of [graph]; of a complete one N^2 edges are made, which a simulation needs not.

    Raises:
        UsageErrors: if the family has no such graph, or the file holds another number of tokens.
    """
    section, tokens = experiment.graph, experiment.task.tokens
    try:
        if section.kind != "file":
            return FAMILIES[section.kind](family_of(experiment))
        if section.path is None:
            raise UsageErrors([UsageError("graph.path", None, 'the path of a graph, for kind = "file"')])
        graph = read_graph(Path(section.path))
    except (OSError, ValueError) as failure:
        key = "path" if section.kind == "file" else "degree"
        raise UsageErrors([UsageError(f"graph.{key}", getattr(section, key), str(failure))]) from None
    if graph.number_of_nodes() != tokens:
        possible = f"{graph.number_of_nodes()}, the number of nodes in {section.path}"
        raise UsageErrors([UsageError("task.tokens", tokens, possible)])
    return graph


def family_of(experiment: Experiment) -> Family:
    """Parameters of the graph family."""
    section = experiment.graph
    return Family(experiment.task.tokens, section.degree, section.rewire, section.window, section.seed)


def mixing_for(experiment: Experiment) -> Mixing:
    """The integer mixing weights of [graph].

    Raises:
        UsageErrors: if there is no such graph, or sums of messages would not fit into 64 bits.
    """
    section = experiment.graph
    if section.kind in ("complete", "causal"):
        mixing = mixing_of(section.kind, family_of(experiment), section.mixing)
    else:
        mixing = weigh(graph_of(experiment), section.mixing)
    headroom = 62 - mixing.largest_row_sum.bit_length()
    if experiment.channel.bits > headroom:
        possible = f"1 to {headroom}, so that sums of weight {mixing.largest_row_sum:,} fit into 64 bits"
        raise UsageErrors([UsageError("channel.bits", experiment.channel.bits, possible)])
    return mixing


def policy_of(
    experiment: Experiment, prior: Prior, mixing: Mixing, learned: Learned | None = None
) -> Policy[Any]:
    """The policy of [policy]; the weights of a learned one are handed in.

    Raises:
        UsageErrors: if the combination of policy and channel is impossible.
    """
    section = experiment.policy
    if section.kind == "learned":
        if learned is None:
            raise ValueError("a learned policy needs its weights: hand them in as `learned`")
        if len(learned.layers) != experiment.run.rounds:
            possible = f"{len(learned.layers)}, the number of layers of the weights that were handed in"
            raise UsageErrors([UsageError("run.rounds", experiment.run.rounds, possible)])
        return learned
    channel = channel_of(experiment)
    codebook = codebook_of(experiment, prior)
    inference = Inference(
        prior, codebook, experiment.task.label_noise, channel.variance, section.belief == "joint"
    )
    if section.kind == "adaptive":
        return Adaptive(inference, channel.channels, section.control_variate)
    if section.order == "pooled":
        schedule = in_turn(len(codebook), experiment.run.rounds, channel.channels)
    else:
        # One schedule for all positions: that of the token that hears most.
        effective = float(mixing.effective().max())
        schedule = open_loop(
            inference, experiment.run.rounds, channel.channels, effective, section.control_variate
        )
    return Static(inference, channel.channels, section.control_variate, schedule)


def system_of(experiment: Experiment, prior: Prior, mixing: Mixing, learned: Learned | None = None) -> System:
    """Everything that is the same at all positions of the simulation."""
    return System(
        prior,
        experiment.task.label_noise,
        experiment.run.seed,
        channel_of(experiment),
        policy_of(experiment, prior, mixing, learned),
        experiment.run.rounds,
    )


def bytes_per_token_prompt(experiment: Experiment) -> int:
    """Memory that one token of one prompt takes at the end of a run, in bytes; an estimate from above.

    A belief keeps, for each atom, a triangle of whitened measurements; beside it stand the inputs, the
    estimates that served as control, and temporaries of a few rows.
    """
    section = experiment.prior
    atoms = section.branching**section.levels if section.kind == "tree" else 1
    rank = section.dim if section.kind != "tree" or section.jitter else 0
    heard = experiment.run.rounds * experiment.channel.channels
    if experiment.policy.kind == "learned":
        numbers = 4 * (experiment.transformer.width + experiment.transformer.hidden)
    else:
        numbers = atoms * (heard * (heard + 5) // 2 + (heard + 2) * rank + 12) + heard * section.dim
    return 8 * (numbers + 6 * section.dim + 16)


def check(experiment: Experiment) -> None:
    """Refuse what cannot run, before anything starts.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    check_prior(experiment)
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
    prior = prior_of(experiment)
    if experiment.policy.kind != "learned":
        codebook_of(experiment, prior)
    mixing_for(experiment)


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
