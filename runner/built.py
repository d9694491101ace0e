"""From an experiment to everything that follows from it, built once and checked before anything starts.

Here is checked what no single key can tell: combinations that cannot run are refused with the key to change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agents.channel import Channel
from agents.codebook import Codebook
from agents.inference.exact import ExactInference
from agents.policies import POLICIES, Policy, PolicyEntry
from agents.policies.adaptive import LevelByLevel
from agents.policies.base import Ingredients, PolicyOptions
from agents.policies.bayesian import Bayesian
from agents.policies.gossip import Gossip
from agents.policies.learned import Learned
from agents.policies.static import Static
from agents.prior import Prior
from agents.step import System
from analysis.theory.plan import Order, Plan, hear_all, plan
from analysis.theory.schedule import best_rounds_per_scale
from analysis.theory.setting import Scenario, Setting
from runner.config.experiment import Experiment
from runner.errors import UsageError, expect
from runner.footprint import check_memory
from runner.parts import (
    channel_of,
    check_policy,
    check_prior,
    codebook_of,
    family_of,
    graph_of,
    mixing_and_nodes,
    prior_of,
)
from runner.validate import (
    validate_experiment,
    validate_learned,
    validate_policy,
    validate_prior,
    validate_trace,
)
from topology.families import Graph
from topology.metrics import Reach, closed_reach
from topology.mixing import Mixing
from topology.nodes import Nodes

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class Built:
    """An experiment and all that follows from it; what takes long is made when it is first asked for.

    Attributes:
        experiment: what was built.
        prior: of [prior], its directions addressed by run.seed.
        channel: the bound on a message.
        mixing: who hears whom, with which integer weights.
        codebook: directions that the policy asks about; None for one with a code for each channel.
        learned: weights of a learned policy, where they were handed in.
        handed_in: what stands for the prior and the policy that were handed in, in the manifest of a run: the
            digest of a prior, the type of a policy.
        own_graph: whether the graph was handed in.
        nodes: names and attributes of the nodes of a graph that was handed in or read; None for a family's,
            whose names are its positions.
    """

    experiment: Experiment
    prior: Prior
    channel: Channel
    mixing: Mixing
    codebook: Codebook | None
    learned: Learned | None
    handed_in: Mapping[str, str]
    own_graph: bool
    nodes: Nodes | None
    _graph: Graph | None  # where the mixing was made from one
    _policy: Policy[Any] | None  # where one was handed in

    @property
    def entry(self) -> PolicyEntry:
        """What is known of the policy's kind."""
        return POLICIES[self.experiment.policy.kind]

    @cached_property
    def graph(self) -> Graph:
        """Who hears whom as a networkx graph on 0..N-1; of a complete one N^2 edges are made."""
        return graph_of(self.experiment)[0] if self._graph is None else self._graph

    @property
    def closed_reach(self) -> Reach | None:
        """Diameter, gap and mixing time in closed form; None without one, or with a graph handed in."""
        section = self.experiment.graph
        return (
            None if self.own_graph else closed_reach(section.kind, family_of(self.experiment), section.mixing)
        )

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """T, rounds of averaging for each question in turn, as the experiment says or theory finds best."""
        asked = self.experiment.policy.rounds_per_scale
        if self.entry.theory != "averaging":
            return (1,)
        if isinstance(asked, int):
            return (asked,)
        if asked != "auto":
            return asked
        setting = replace(self._setting((1,), Plan()), exact=False)
        return (best_rounds_per_scale(setting, self.mixing, self.experiment.run.seed),)

    @cached_property
    def plan(self) -> Plan:
        """What theory settles for the policy: the order of its questions, and what answers are worth."""
        section, rounds = self.experiment.policy, self.experiment.run.rounds
        if self._policy is not None or not self.entry.believes:  # no theory weighs its repeated answers
            return Plan(grouped=hear_all(self.mixing), repeats=(0.0,) * rounds)
        given = None if section.repeats == "auto" else (float(section.repeats),) * rounds
        setting = self._setting(self.turns, Plan(repeats=given))
        if not setting.exact:
            return Plan("level" if section.order == "level" else "widest")
        orders: tuple[Order, ...] = ("widest",)
        if section.order == "level":
            orders = ("level",)
        elif section.order == "auto" and "level" in self.entry.orders and self.prior.branches.shape[1]:
            orders = ("widest", "level")
        averaging = self.entry.theory == "averaging"
        return plan(setting, self.mixing, 0, orders, self.turns, unasked=averaging)

    @cached_property
    def policy(self) -> Policy[Any]:
        """The policy of [policy], or the one that was handed in.

        Raises:
            UsageError: if it is a learned one, and no weights were handed in.
        """
        if self._policy is not None:
            return self._policy
        if self.entry.is_trained:
            validate_learned(self.learned, self.prior.dim, self.channel.channels, self.experiment.run.rounds)
            assert self.learned is not None
            return self.learned
        return self._make_policy(self.turns, self.plan)

    @cached_property
    def system(self) -> System:
        """Everything that is the same at all positions of a simulation."""
        return System(
            self.prior,
            self.experiment.task.label_noise,
            self.experiment.run.seed,
            self.channel,
            self.policy,
            self.experiment.run.rounds,
        )

    @cached_property
    def scenario(self) -> Scenario:
        """The experiment as theory sees it."""
        theory = None if self._policy is not None else self.entry.theory
        believes = self._policy is None and self.entry.believes
        return Scenario(
            self.prior,
            self.experiment.task.label_noise,
            self.channel,
            self.mixing,
            self.experiment.run.rounds,
            self.experiment.run.seed,
            theory,
            self._policy is not None or self.entry.adapts,
            self._setting(self.turns, self.plan) if believes else None,
            self.turns,
        )

    def varied(self, values: dict[str, object]) -> "Built":
        """The experiment with some dotted keys set; prior and graph are made anew only where they differ.

        What was handed in stays.

        Raises:
            UsageError: if a key is unknown, or a value or their combination impossible; or if a policy was
                handed in, or a prior whose keys would be varied, which keys do not change.
        """
        experiment = self.experiment.with_values(values)
        sections = {key.partition(".")[0] for key in values}
        for name, given in self.handed_in.items():
            if name == "policy" or name in sections:
                raise UsageError(name, given, "one that the experiment names, for a study of its keys")
        graph = self.graph if self.own_graph else None
        prior = self.prior if "prior" in self.handed_in else None
        return build(experiment, graph, prior=prior, like=self)

    def with_weights(self, learned: Learned) -> "Built":
        """The same with the weights of a learned policy.

        Raises:
            UsageError: if they do not fit.
        """
        _check_learned(self.experiment, self.prior, learned)
        return replace(self, learned=learned)

    def with_policy(self, policy: Policy[Any]) -> "Built":
        """The same with another policy, as if it had been handed in."""
        return replace(self, _policy=policy, handed_in={**self.handed_in, "policy": _type_of(policy)})

    def _make_policy(self, turns: tuple[int, ...], plan: Plan) -> Policy[Any]:
        section, make = self.experiment.policy, self.entry.build
        assert make is not None
        options = PolicyOptions(
            section.control_variate,
            plan.order if section.order == "auto" else section.order,
            section.belief,
            section.own_example,
            plan.grouped,
            plan.disagreement,
            plan.repeats,
            turns,
            section.step,
            section.options,
        )
        try:
            return make(
                Ingredients(
                    self.prior,
                    self.codebook,
                    self.experiment.task.label_noise,
                    self.channel,
                    self.experiment.run.rounds,
                    self.mixing,
                    options,
                )
            )
        except ValueError as failure:
            raise UsageError("policy.kind", section.kind, f"another choice of its keys; {failure}") from None

    def _setting(self, turns: tuple[int, ...], plan: Plan) -> Setting:
        """The belief of the policy, as state evolution takes it."""
        policy, channel = self._make_policy(turns, plan), self.channel
        asking = policy.asking if isinstance(policy, Gossip) else policy
        assert isinstance(asking, Bayesian)
        return Setting(
            prior=self.prior,
            codebook=asking.inference.codebook,
            policy="static" if isinstance(asking, Static) else "adaptive",
            schedule=asking.schedule if isinstance(asking, Static) else None,
            rounds=self.experiment.run.rounds,
            channels=channel.channels,
            effective=float(self.mixing.tokens),
            label_noise=self.experiment.task.label_noise,
            message_noise_variance=channel.noise**2,
            step=channel.step,
            clip=channel.clip,
            control_variate=asking.control_variate,
            joint=self.experiment.policy.belief != "independent",
            exact=isinstance(asking.inference, ExactInference),
            order="level" if isinstance(asking, LevelByLevel) else "widest",
            own_example=asking.own_example,
            repeats=plan.repeats,
            disagreement=plan.disagreement,
        )


def build(
    experiment: Experiment,
    graph: "nx.Graph[Any] | None" = None,
    learned: Learned | None = None,
    *,
    prior: Prior | None = None,
    policy: Policy[Any] | None = None,
    like: Built | None = None,
) -> Built:
    """Check an experiment, and make what everything else takes.

    Args:
        experiment: what would be run.
        graph: any networkx graph in place of the experiment's; an edge j -> i means that i hears j.
        learned: weights of a learned policy.
        prior: in place of the experiment's; its input dimension must be prior.dim.
        policy: in place of the experiment's; K is channel.channels.
        like: what was built before; its prior and graph are taken where the experiments agree on them.

    Raises:
        UsageError: naming the key, what was given, what is possible.

    Example:
        >>> built = build(Experiment())
        >>> built.mixing.tokens, len(built.codebook), built.policy.codes
        (32, 7, 7)
    """
    validate_experiment(experiment)
    validate_trace(experiment)
    check_prior(experiment)
    check_memory(experiment)
    if policy is None:
        check_policy(experiment)
    if like is not None:
        expect("like", like, Built, "what build gave before, or None")
    if prior is not None:
        validate_prior(prior)
        if prior.dim != experiment.prior.dim:
            raise UsageError("prior.dim", experiment.prior.dim, f"{prior.dim}, that of the prior handed in")
    handed_in = {}
    if prior is not None:
        handed_in["prior"] = prior.digest()
    if policy is not None:
        handed_in["policy"] = _type_of(policy)
    if prior is None:
        prior = (
            like.prior
            if like and "prior" not in like.handed_in and _same_prior(like.experiment, experiment)
            else prior_of(experiment)
        )
    channel = channel_of(experiment, policy)
    codebook = codebook_of(experiment, prior) if policy is None else None
    own_graph = graph is not None
    known = like and own_graph == like.own_graph and (graph is None or graph is like._graph)
    if like and known and _same_graph(like.experiment, experiment):
        mixing, made, nodes = like.mixing, like._graph, like.nodes
    else:
        mixing, made, nodes = mixing_and_nodes(experiment, graph)
        if like and known and own_graph:  # which is on positions already, and keeps its names
            nodes = like.nodes
    _check_bits(experiment, mixing)
    if policy is not None:
        validate_policy(policy, experiment.run.rounds, mixing.tokens)
    _check_learned(experiment, prior, learned)
    return Built(
        experiment, prior, channel, mixing, codebook, learned, handed_in, own_graph, nodes, made, policy
    )


def _same_prior(one: Experiment, other: Experiment) -> bool:
    return one.prior == other.prior and one.run.seed == other.run.seed


def _same_graph(one: Experiment, other: Experiment) -> bool:
    return one.graph == other.graph and one.task.tokens == other.task.tokens


def _check_bits(experiment: Experiment, mixing: Mixing) -> None:
    """Refuse messages whose weighted sums would not fit into 64 bits."""
    headroom = 62 - mixing.largest_row_sum.bit_length()
    if experiment.channel.bits > headroom:
        possible = f"1 to {headroom}, so that sums of weight {mixing.largest_row_sum:,} fit into 64 bits"
        raise UsageError("channel.bits", experiment.channel.bits, possible)


def _check_learned(experiment: Experiment, prior: Prior, learned: Learned | None) -> None:
    """Refuse weights for a policy that has none, and weights that do not fit."""
    if learned is None:
        return
    if not POLICIES[experiment.policy.kind].is_trained:
        possible = '"learned", which runs the weights that were handed in'
        raise UsageError("policy.kind", experiment.policy.kind, possible)
    validate_learned(learned, prior.dim, experiment.channel.channels, experiment.run.rounds)


def _type_of(policy: object) -> str:
    return f"{type(policy).__module__}.{type(policy).__qualname__}"
