"""Parts of a system, each made from its table of an experiment, and checked: prior, channel, codes, graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.channel import Channel
from agents.codebook import Codebook
from agents.policies import POLICIES, Policy
from agents.policies.base import PolicyOptions
from agents.prior import PRIORS, Prior
from analysis.resources import available_memory
from runner.config.experiment import Experiment
from runner.errors import UsageError
from runner.footprint import prior_options
from runner.validate import validate_graph
from topology.families import FAMILIES, Family, Graph
from topology.io import read_named, relabelled
from topology.mixing import Mixing, mixing_of, weigh
from topology.nodes import Nodes, nodes_of

if TYPE_CHECKING:
    import networkx as nx

_LARGEST_MIXTURE = 4096
_MOST_CHANNELS = 2**15 - 1  # codes are stored as 16-bit integers


def check_prior(experiment: Experiment) -> None:
    """Refuse a prior that is too large, or that does not fit into its space.

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    section, options = experiment.prior, prior_options(experiment)
    entry = PRIORS[section.kind]
    leaves = max(entry.atoms(options), entry.leaves(options))
    if leaves > _LARGEST_MIXTURE:
        possible = f"branching ** levels up to {_LARGEST_MIXTURE} leaves, this is {leaves}"
        raise UsageError("prior.levels", section.levels, possible)
    needed = entry.least_dim(options)
    if section.dim < needed:
        possible = (
            f"{needed} or more for orthonormal directions with levels = {section.levels} and "
            f"branching = {section.branching}"
        )
        advice = 'Raise prior.dim, or set prior.directions = "random"'
        raise UsageError("prior.dim", section.dim, possible, advice)


def check_policy(experiment: Experiment) -> None:
    """Refuse keys of [policy] that its kind would not read; weights read none.

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    section = experiment.policy
    entry = POLICIES[section.kind]
    if entry.is_trained:  # of agents beside it
        return
    if section.order not in ("auto", *entry.orders):
        known = " | ".join(f'"{order}"' for order in ("auto", *entry.orders))
        raise UsageError("policy.order", section.order, f"{known} with policy {section.kind}")
    if section.own_example and not entry.believes:
        raise UsageError(
            "policy.own_example", True, f"false with policy {section.kind}, which holds no belief"
        )
    if section.repeats != "auto" and not (entry.believes and section.belief == "exact"):
        possible = '"auto" but for a belief from the exact law: policy.belief = "exact"'
        raise UsageError("policy.repeats", section.repeats, possible)


def prior_of(experiment: Experiment) -> Prior:
    """The prior of [prior].

    Raises:
        UsageError: if its kind refuses its keys.
    """
    section = experiment.prior
    try:
        prior = PRIORS[section.kind].build(prior_options(experiment))
    except ValueError as failure:
        raise UsageError("prior.kind", section.kind, f"another choice of its keys; {failure}") from None
    if prior.dim != section.dim:
        raise UsageError("prior.dim", section.dim, f"{prior.dim}, that of the prior {section.kind}")
    return prior


def channel_of(experiment: Experiment, policy: Policy[Any] | None) -> Channel:
    """The channel of [channel], with as many scalars as the policy needs.

    Raises:
        UsageError: where the policy says how many numbers a message has, and the file says otherwise.
    """
    section, kind = experiment.channel, experiment.policy.kind
    needed = section.channels if policy is not None else experiment.channels
    if section.channels not in (1, needed):
        possible = f"left out with policy {kind}, whose messages have {needed} numbers"
        raise UsageError("channel.channels", section.channels, possible)
    if needed > _MOST_CHANNELS:
        most = _MOST_CHANNELS // (experiment.prior.dim + 1)
        possible = f"up to {most:,} with policy {kind}, whose messages name each number of each token"
        raise UsageError("task.tokens", experiment.task.tokens, possible)
    return Channel(needed, section.bits, section.clip, section.noise)


def codebook_of(experiment: Experiment, prior: Prior) -> Codebook | None:
    """The directions that the policy asks about.

    Raises:
        UsageError: if a message has more channels than there are codes.
    """
    section = experiment.policy
    make = POLICIES[section.kind].codebook
    if make is None:
        return None
    book = make(prior, PolicyOptions(order=section.order, options=section.options))
    if experiment.channel.channels > len(book):
        possible = f"1 to {len(book)}, the number of codes of this policy"
        raise UsageError("channel.channels", experiment.channel.channels, possible)
    return book


def graph_of(experiment: Experiment) -> tuple[Graph, Nodes | None]:
    """The locality graph of [graph], and what its file calls the nodes.

    Raises:
        UsageError: if the family has no such graph, or the file holds another number of tokens.
    """
    section, tokens, nodes = experiment.graph, experiment.task.tokens, None
    try:
        if section.kind != "file":
            graph = FAMILIES[section.kind](family_of(experiment))
        elif section.path is None:
            raise UsageError("graph.path", None, 'the path of a graph, for kind = "file"')
        else:
            named = read_named(Path(section.path), available_memory())
            graph, nodes = relabelled(named), nodes_of(named)
    except (OSError, ValueError) as failure:
        if section.kind == "file":
            possible = f"a .graphml file, or one with two names a line; {failure}"
            raise UsageError("graph.path", section.path, possible) from None
        raise UsageError("graph.degree", section.degree, str(failure)) from None
    if graph.number_of_nodes() != tokens:
        where = section.path if section.kind == "file" else f"a graph of the family {section.kind}"
        possible = f"{graph.number_of_nodes()}, the number of nodes in {where}"
        raise UsageError("task.tokens", tokens, possible)
    return graph, nodes


def family_of(experiment: Experiment) -> Family:
    """What a family of graphs is made from."""
    section = experiment.graph
    return Family(experiment.task.tokens, section.degree, section.rewire, section.window, section.seed)


def mixing_and_nodes(
    experiment: Experiment, graph: "nx.Graph[Any] | None"
) -> tuple[Mixing, Graph | None, Nodes | None]:
    """The integer mixing weights, the graph that they were made from, if one was made, and its named nodes.

    Raises:
        UsageError: if there is no such graph.
    """
    section, tokens = experiment.graph, experiment.task.tokens
    if graph is None:
        if section.kind in ("complete", "causal"):  # have weights without N^2 edges one by one
            return mixing_of(section.kind, family_of(experiment), section.mixing), None, None
        made, nodes = graph_of(experiment)
        return weigh(made, section.mixing), made, nodes
    validate_graph(graph)
    if graph.number_of_nodes() != tokens:
        possible = f"{graph.number_of_nodes()}, the number of nodes of the graph"
        raise UsageError("task.tokens", tokens, possible)
    try:
        made, nodes = relabelled(graph), nodes_of(graph)
    except ValueError as failure:
        raise UsageError("graph", graph, f"a graph of plain edges; {failure}") from None
    return weigh(made, section.mixing), made, nodes
