"""What theory needs to know: of a belief that all tokens share, and of a whole system."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from agents.channel import Channel
from agents.codebook import Codebook
from agents.prior import Prior
from topology.mixing import Mixing

_RELATIVE_FLOOR = 1e-12


@dataclass(frozen=True, eq=False)
class Setting:
    """The system whose risk is predicted: N tokens on the complete graph with a shared control.

    Attributes:
        prior: prior over w.
        codebook: directions that may be asked.
        policy: `adaptive` asks the K codes of largest posterior variance, `static` follows `schedule`.
        rounds: L.
        channels: K, codes in a round.
        effective: N, number of tokens in a mean; the Gaussian form takes any positive number.
        label_noise: sigma.
        message_noise_variance: tau^2, variance of the transmitter noise of one message.
        step: distance between levels of the quantiser, which the belief takes as noise of variance step^2/12.
        control_variate: messages carry the posterior mean as control v; without it v = 0.
        joint: the belief uses the covariance between rounds; if false, it takes fields as independent.
        exact: the belief knows the exact law of a field, for a discrete prior; rounds are then grouped by
            code on the complete graph, and on others independent but for `repeats`.
        order: of the adaptive policy: `widest`, or `level`, the likeliest node of each level in turn first.
        own_example: a token's estimate uses its own example beside the fields.
        repeats: weight of a repeated answer in each round, where rounds are not grouped; None for 1 [L].
        disagreement: Delta of each round and position, as the belief takes it; None for zero [L, N].
        schedule: the K codes of each round, needed by `static`.
        clip: c, largest magnitude of a message, which the belief does not know of; by default none.

    Raises:
        ValueError: if a number is out of range or the schedule does not fit.

    Source: THEORY.md sections 5 to 7.
    """

    prior: Prior
    codebook: Codebook
    policy: Literal["adaptive", "static"]
    rounds: int
    channels: int
    effective: float
    label_noise: float
    message_noise_variance: float = 0.0
    step: float = 0.0
    control_variate: bool = True
    joint: bool = True
    exact: bool = False
    order: Literal["widest", "level"] = "widest"
    own_example: bool = False
    repeats: tuple[float, ...] | None = None
    disagreement: Float[np.ndarray, "L N"] | None = None
    schedule: tuple[tuple[int, ...], ...] | None = None
    clip: float = np.inf

    def __post_init__(self) -> None:
        if self.effective <= 0:
            raise ValueError(f"effective number of tokens must be positive, got {self.effective}")
        if not 1 <= self.channels <= len(self.codebook):
            raise ValueError(f"channels must be 1..{len(self.codebook)} codes, got {self.channels}")
        if self.exact and self.prior.factor.shape[1]:
            raise ValueError("the exact law of a field needs a prior without a Gaussian part")
        if (self.policy == "static") != (self.schedule is not None):
            raise ValueError("a schedule is needed by the static policy, and by no other")
        for codes in self.schedule or ():
            if len(codes) != self.channels or len(set(codes)) != len(codes):
                raise ValueError(f"a round of the schedule needs {self.channels} distinct codes, got {codes}")
        if self.schedule is not None and len(self.schedule) < self.rounds:
            raise ValueError(f"the schedule has {len(self.schedule)} rounds, {self.rounds} are needed")

    @property
    def channel_variance(self) -> float:
        """Variance added to a message: tau^2 + step^2/12, or a share of its own variance if that is less.

        The share is far above rounding and far below any other noise: asking twice is no division by zero.
        """
        return max(self.message_noise_variance + self.step**2 / 12.0, self._floor)

    @property
    def analogue_variance(self) -> float:
        """Variance added to a message before it is clipped and rounded: tau^2; all of it without a clip."""
        if np.isinf(self.clip):
            return self.channel_variance
        return max(self.message_noise_variance, self._floor)

    @property
    def _floor(self) -> float:
        return _RELATIVE_FLOOR * (self.prior.power() + self.label_noise**2)


@dataclass(frozen=True, eq=False)
class Scenario:
    """A whole system as theory sees it: who hears whom, what a message holds, how codes are chosen.

    Attributes:
        prior: prior over w.
        label_noise: sigma.
        channel: the bound on a message.
        mixing: who hears whom, with which weights.
        rounds: L.
        seed: of all draws.
        theory: how the policy is treated: by state evolution of one belief, by the same with `turns` rounds
            of averaging for each question, or as the best linear estimate from the examples within reach;
            None where no theory is written.
        adapts: whether tokens may ask different codes, as what they heard suggests.
        setting: the belief, for the two forms of state evolution.
        turns: rounds of averaging for each question in turn.
    """

    prior: Prior
    label_noise: float
    channel: Channel
    mixing: Mixing
    rounds: int
    seed: int
    theory: Literal["state evolution", "averaging", "light cone"] | None = None
    adapts: bool = False
    setting: Setting | None = None
    turns: tuple[int, ...] = (1,)
