"""From an Experiment to the objects that run: prior, policy, channel, system, mixing.

Here is checked what no single key can tell: combinations that cannot run are refused, before anything
starts, with the key to change.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.channel import Channel
from agents.codebook import Codebook, pooled, principal
from agents.inference.posterior import Inference
from agents.policies.adaptive import Adaptive
from agents.policies.base import Policy
from agents.policies.flood import Flood, root
from agents.policies.gossip import Gossip, Unasked
from agents.policies.gradient import Gradient, step_length
from agents.policies.learned import Learned
from agents.policies.static import Static, in_turn, open_loop
from agents.prior import Prior, axes_needed, gaussian, matched_gaussian, tree
from agents.step import System
from runner.arguments import check_experiment, check_graph, check_learned
from runner.errors import UsageError, UsageErrors
from runner.experiment import Experiment
from runner.footprint import check_memory
from runner.memory import available_memory
from topology.families import FAMILIES, Family, Graph
from topology.io import read_graph, relabelled
from topology.mixing import Mixing, mixing_of, weigh

if TYPE_CHECKING:
    import networkx as nx

_LARGEST_MIXTURE = 4096
_MOST_CHANNELS = 2**15 - 1  # codes are stored as 16-bit integers


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
    return Channel(experiment.channels, section.bits, section.clip, section.noise)


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
        graph = read_graph(Path(section.path), available_memory())
    except (OSError, ValueError) as failure:
        if section.kind == "file":
            possible = f"a .graphml file, or one with two names a line; {failure}"
            raise UsageErrors([UsageError("graph.path", section.path, possible)]) from None
        raise UsageErrors([UsageError("graph.degree", section.degree, str(failure))]) from None
    if graph.number_of_nodes() != tokens:
        possible = f"{graph.number_of_nodes()}, the number of nodes in {section.path}"
        raise UsageErrors([UsageError("task.tokens", tokens, possible)])
    return graph


def family_of(experiment: Experiment) -> Family:
    """Parameters of the graph family."""
    section = experiment.graph
    return Family(experiment.task.tokens, section.degree, section.rewire, section.window, section.seed)


def mixing_for(experiment: Experiment, graph: "nx.Graph[Any] | None" = None) -> Mixing:
    """The integer mixing weights of [graph], or of a graph in its place.

    Raises:
        UsageErrors: if there is no such graph, or sums of messages would not fit into 64 bits.
    """
    section = experiment.graph
    if graph is not None:
        check_graph(graph)
        if graph.number_of_nodes() != experiment.task.tokens:
            possible = f"{graph.number_of_nodes()}, the number of nodes of the graph"
            raise UsageErrors([UsageError("task.tokens", experiment.task.tokens, possible)])
        try:
            mixing = weigh(relabelled(graph), section.mixing)
        except ValueError as failure:
            raise UsageErrors([UsageError("graph", graph, f"a graph of plain edges; {failure}")]) from None
    elif section.kind in ("complete", "causal"):
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
        UsageErrors: if the combination of policy and channel is impossible, or weights do not fit.
    """
    section = experiment.policy
    if section.kind == "learned":
        check_learned(learned, prior.dim, experiment.channel.channels)
        assert learned is not None
        if len(learned.layers) != experiment.run.rounds:
            possible = f"{len(learned.layers)}, the number of layers of the weights that were handed in"
            raise UsageErrors([UsageError("run.rounds", experiment.run.rounds, possible)])
        return learned
    if learned is not None:
        possible = '"learned", which runs the weights that were handed in'
        raise UsageErrors([UsageError("policy.kind", section.kind, possible)])
    channel, label_noise = channel_of(experiment), experiment.task.label_noise
    if section.kind == "gradient":
        if section.step is not None:
            return Gradient(prior.dim, np.full(mixing.tokens, section.step))
        return Gradient(prior.dim, step_length(mixing.fewest_beside(), prior.dim, label_noise))
    if section.kind == "flood":
        return Flood(mixing.tokens, prior.mean(), root(prior.covariance()), label_noise)
    codebook = codebook_of(experiment, prior)
    inference = Inference(prior, codebook, label_noise, channel.variance, section.belief == "joint")
    if section.kind == "adaptive":
        return Adaptive(inference, channel.channels, section.control_variate)
    if section.kind == "gossip":
        unasked = Unasked(inference, channel.channels, section.control_variate)
        turns = turns_of(experiment, mixing)
        return Gossip(unasked, turns, mixing.reach(max(turns)))
    if section.order == "pooled":
        schedule = in_turn(len(codebook), experiment.run.rounds, channel.channels)
    else:
        # One schedule for all positions: that of the token that hears most.
        effective = float(mixing.effective().max())
        schedule = open_loop(
            inference, experiment.run.rounds, channel.channels, effective, section.control_variate
        )
    return Static(inference, channel.channels, section.control_variate, schedule)


def turns_of(experiment: Experiment, mixing: Mixing) -> tuple[int, ...]:
    """Rounds of averaging for each question: what the experiment says, or what theory finds best."""
    asked = experiment.policy.rounds_per_scale
    if asked == "auto":
        from runner.planning import best_rounds_per_scale  # it stands above, and asks the theory

        return (best_rounds_per_scale(experiment, mixing),)
    return (asked,) if isinstance(asked, int) else asked


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


def check(experiment: Experiment, graph: "nx.Graph[Any] | None" = None) -> None:
    """Refuse what cannot run, before anything starts.

    Args:
        experiment: what would be run.
        graph: in place of the experiment's.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    check_experiment(experiment)
    check_prior(experiment)
    check_memory(experiment)
    prior = prior_of(experiment)
    _check_channels(experiment)
    if experiment.policy.kind in ("adaptive", "static", "gossip"):
        codebook_of(experiment, prior)
    mixing_for(experiment, graph)


def _check_channels(experiment: Experiment) -> None:
    """Refuse a number of channels where the policy says how many numbers a message has."""
    kind, needed = experiment.policy.kind, experiment.channels
    if kind in ("gradient", "flood") and experiment.channel.channels not in (1, needed):
        possible = f"left out with policy {kind}, whose messages have {needed} numbers"
        raise UsageErrors([UsageError("channel.channels", experiment.channel.channels, possible)])
    if needed > _MOST_CHANNELS:
        most = _MOST_CHANNELS // (experiment.prior.dim + 1)
        possible = f"up to {most:,} with policy flood, whose messages name each number of each token"
        raise UsageErrors([UsageError("task.tokens", experiment.task.tokens, possible)])
