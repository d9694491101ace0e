"""What a comparison puts side by side: a file with a [compare], [locality], [ablation] or [causal] table."""

from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le
from pydantic import Field

from agents.policies import POLICIES
from agents.prior import PRIORS
from runner.config.experiment import Experiment, Section, Turn
from runner.config.registries import load_entry_points, one_of
from topology.families import FAMILIES


def policy_names() -> list[str]:
    """The policies that a comparison can name: kind, order of the questions, with or without control.

    An adaptive policy without an order takes the one that theory finds better.

    Example:
        >>> [name for name in policy_names() if "pooled" in name or "gradient" in name]
        ['static pooled', 'gradient', 'static pooled, no cv']
    """
    load_entry_points()
    explicit = {kind: entry for kind, entry in POLICIES.items() if not entry.is_trained}
    plain = {
        f"{kind} {order}".strip(): entry
        for kind, entry in explicit.items()
        for order in (("", *entry.orders) if entry.adapts else entry.orders or ("",))
    }
    return [*plain, *(f"{name}, no cv" for name, entry in plain.items() if entry.controls)]


PolicyName = Annotated[str, one_of(policy_names)]
_MAIN = (
    "adaptive",
    "static codes",
    "static pooled",
    "adaptive, no cv",
    "static codes, no cv",
    "static pooled, no cv",
)
Variant = Literal["feedforward", "linear"]


class CompareSection(Section):
    """[compare]: what is put side by side."""

    policies: tuple[PolicyName, ...] = Field(_MAIN, strict=False)
    null: bool = True
    transformers: tuple[Variant, ...] = Field(get_args(Variant), strict=False)
    theory_samples: int = Field(20_000, ge=2, le=10**8)


GraphName = Annotated[str, one_of(lambda: [name for name in FAMILIES if name != "causal"])]


def policy_values(policy: str) -> dict[str, object]:
    """The keys that a policy's name in a comparison stands for.

    Example:
        >>> policy_values("static pooled, no cv")
        {'policy.kind': 'static', 'policy.order': 'pooled', 'policy.control_variate': False}
    """
    name, _, suffix = policy.partition(", ")
    kind, _, order = name.partition(" ")
    return {**of_kind(kind, order or "auto"), "policy.control_variate": suffix != "no cv"}


def of_kind(kind: str, order: str = "auto") -> dict[str, object]:
    """The keys that make the policy of an experiment one of another kind, without what that would refuse.

    Example:
        >>> of_kind("adaptive")
        {'policy.kind': 'adaptive', 'policy.order': 'auto'}
        >>> of_kind("flood")["policy.own_example"]
        False
    """
    refused = {} if POLICIES[kind].believes else {"policy.own_example": False, "policy.repeats": "auto"}
    return {"policy.kind": kind, "policy.order": order, **refused}


class LocalitySection(Section):
    """[locality]: graphs and depths of the locality-depth diagram; policies and depth on the causal graph."""

    families: tuple[GraphName, ...] = Field(
        ("complete", "random_regular", "small_world", "grid", "ring", "barbell", "star", "path"),
        strict=False,
        min_length=1,
    )
    depths: tuple[Turn, ...] = Field((3, 6, 12, 24, 48), strict=False, min_length=1)
    turns: tuple[Turn, ...] = Field((1, 2, 3, 4, 6, 12), strict=False)
    context_policies: tuple[PolicyName, ...] = Field(
        ("adaptive", "static codes, no cv", "gradient", "flood"), strict=False
    )
    context_rounds: int = Field(4, ge=1, le=64)
    transformer: bool = True
    theory_samples: int = Field(5_000, ge=2, le=10**8)


Value = bool | int | float | str
Unconstrained = Literal["softmax", "masked softmax", "linear self-attention"]


class AblationSection(Section):
    """[ablation]: transformers that lack a part, each at depth 1 to run.rounds, several seeds of each."""

    variants: dict[str, dict[str, Value]] = Field(
        {
            "full": {},
            "no feedforward": {"transformer.feedforward": False},
            "constant queries": {"transformer.adaptive_queries": False},
            "neither": {"transformer.feedforward": False, "transformer.adaptive_queries": False},
            "no control variate": {"policy.control_variate": False},
            "looped": {"transformer.looped": True},
        },
        min_length=1,
    )
    null: tuple[str, ...] = Field(("full", "no feedforward", "constant queries"), strict=False)
    seeds: int = Field(5, ge=1, le=1000)
    unconstrained: tuple[Unconstrained, ...] = Field(get_args(Unconstrained), strict=False)
    theory_samples: int = Field(20_000, ge=2, le=10**8)


class CausalSection(Section):
    """[causal]: agents and trained transformers on the causal graph, by tokens heard, run.rounds deep."""

    noises: tuple[Annotated[float, Ge(0), Le(1e3)], ...] = Field((0.0, 1.0), strict=False, min_length=1)
    seeds: int = Field(3, ge=1, le=1000)
    contexts: tuple[Annotated[int, Ge(1), Le(2**20)], ...] = Field(
        (8, 16, 32, 64), strict=False, min_length=1
    )
    policies: tuple[PolicyName, ...] = Field(("adaptive", "adaptive widest", "static codes"), strict=False)
    own_example: bool = True
    """Beside adaptive agents the same with the token's own example in the estimate."""
    examined: int = Field(2_000, ge=40, le=10**6)
    """Prompts that are examined; half of them fit the probes."""
    theory_samples: int = Field(5_000, ge=2, le=10**8)


class Comparison(Experiment):
    """An experiment, and what is compared on it: policies, or what the file has a table for.

    A [locality] table compares graphs, an [ablation] table transformers that lack a part, a [causal] table
    agents and transformers by tokens heard.
    """

    compare: CompareSection = CompareSection()
    locality: LocalitySection | None = None
    ablation: AblationSection | None = None
    causal: CausalSection | None = None

    def variant(self, prior: str, policy: PolicyName) -> Experiment:
        """The experiment of one prior and one policy."""
        return self._plain({"prior.kind": prior, **policy_values(policy)})

    def transformer_variant(self, depth: int, variant: Variant) -> Experiment:
        """The experiment of a transformer of one depth."""
        return self._plain(
            {
                "run.rounds": depth,
                **of_kind("learned"),
                "transformer.feedforward": variant == "feedforward",
            }
        )

    def ablated(self, prior: str, variant: str, depth: int, seed: int) -> Experiment:
        """The experiment of a transformer that lacks what a variant of [ablation] takes from it.

        Raises:
            UsageError: if the variant sets an unknown key, or an impossible value.
        """
        values = (self.ablation or AblationSection()).variants[variant]
        fixed = {"prior.kind": prior, "run.rounds": depth, **of_kind("learned")}
        return self._plain({**values, **fixed, "transformer.seed": self.transformer.seed + seed})

    def experiment(self) -> Experiment:
        """The experiment alone."""
        return self._plain({})

    def pairs(self) -> list[tuple[str, PolicyName]]:
        """Prior and policy of each simulation: the prior of the file, then its null."""
        priors: list[str] = [self.prior.kind]
        null = PRIORS[self.prior.kind].null
        if self.compare.null and null is not None:
            priors.append(null)
        return [(prior, policy) for prior in priors for policy in self.compare.policies]

    def _plain(self, values: dict[str, object]) -> Experiment:
        content = self.model_dump(exclude={"compare", "locality", "ablation", "causal"})
        return Experiment.model_validate(content).with_values(values)
