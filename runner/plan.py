"""What a comparison puts side by side: an experiment file with a [compare] table."""

from typing import Literal, get_args

from pydantic import Field

from runner.experiment import Experiment, Section

PolicyName = Literal[
    "adaptive",
    "static codes",
    "static pooled",
    "adaptive, no cv",
    "static codes, no cv",
    "static pooled, no cv",
]
Variant = Literal["feedforward", "linear"]


class CompareSection(Section):
    """[compare]: what is put side by side."""

    policies: tuple[PolicyName, ...] = Field(get_args(PolicyName), strict=False)
    null: bool = True
    transformers: tuple[Variant, ...] = Field(get_args(Variant), strict=False)
    theory_samples: int = Field(20_000, ge=2, le=10**8)


class Comparison(Experiment):
    """An experiment, and what is compared on it."""

    compare: CompareSection = CompareSection()

    def variant(self, prior: str, policy: PolicyName) -> Experiment:
        """The experiment of one prior and one policy."""
        name, _, suffix = policy.partition(", ")
        kind, _, order = name.partition(" ")
        return self._plain(
            {
                "prior.kind": prior,
                "policy.kind": kind,
                "policy.order": order or "codes",
                "policy.control_variate": suffix != "no cv",
            }
        )

    def transformer_variant(self, depth: int, variant: Variant) -> Experiment:
        """The experiment of a transformer of one depth."""
        return self._plain(
            {
                "run.rounds": depth,
                "policy.kind": "learned",
                "transformer.feedforward": variant == "feedforward",
            }
        )

    def experiment(self) -> Experiment:
        """The experiment alone."""
        return self._plain({})

    def pairs(self) -> list[tuple[str, PolicyName]]:
        """Prior and policy of each simulation: the prior of the file, then its null."""
        priors: list[str] = [self.prior.kind]
        if self.compare.null and self.prior.kind == "tree":
            priors.append("matched_gaussian")
        return [(prior, policy) for prior in priors for policy in self.compare.policies]

    def _plain(self, values: dict[str, object]) -> Experiment:
        content = self.model_dump(exclude={"compare"})
        return Experiment.model_validate(content).with_values(values)
