"""The law of the mean that a position holds hop by hop, in place of the tokens that pass it on."""

from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np
from jaxtyping import Float

from analysis.theory.evolution.complete import quantiser_of
from analysis.theory.evolution.fields import GaussianLaw, columns_of
from analysis.theory.evolution.hops import Hops
from analysis.theory.setting import Setting

Array = np.ndarray
Normals: TypeAlias = Float[Array, "T n K"]


class Relay(Protocol):
    """What the messages of one phase amount to after each hop, before what the channel does to the mean."""

    def ask(self, asked: Float[Array, "n K d"], control: Float[Array, "n d"], normals: Normals) -> None:
        """Begin a phase: directions u, control v, standard normal numbers."""

    def after(self, hop: int) -> Float[Array, "n K"]:
        """Mean of the messages after `hop` + 1 hops, less u.w."""


class GaussianRelay:
    """Means that are jointly Gaussian over hops and phases: the mean field.

    Measurements of one token have a covariance over phases; a mean with weights a is its scalar product
    with them. In an orthonormal basis of the weights of T hops the components are T
    independent processes, each with the covariance of one token.

    Source: THEORY.md sections 5 and 6.
    """

    def __init__(self, setting: Setting, hops: Hops, truth: Float[Array, "n d"]) -> None:
        """Take the system, the position, true w."""
        self.root, self.truth = hops.root(), truth
        scale = (1.0, setting.label_noise, setting.analogue_variance)
        self.components = [GaussianLaw(*scale, truth) for _ in self.root.T]

    def ask(self, asked: Float[Array, "n K d"], control: Float[Array, "n d"], normals: Normals) -> None:
        """Begin a phase: its components."""
        drawn = zip(self.components, normals, strict=False)
        self.drawn = np.stack([law.fields(asked, control, fresh) for law, fresh in drawn])
        self.drawn -= along(asked, self.truth)

    def after(self, hop: int) -> Float[Array, "n K"]:
        """The component along the weights of the hop."""
        return np.tensordot(self.root[hop], self.drawn, 1)


class WeightedRelay:
    """Means of whole tokens with weights (A^h)_ij: u'G_h(w - v) + sigma u'g_h + u.v.

    G_h = sum_j (A^h)_ij x_j x_j' and g_h = sum_j (A^h)_ij x_j e_j come from the same tokens in every hop and
    phase. Exact at any N_eff, for tokens that share u and v.

    Source: THEORY.md section 7.2, with unequal weights.
    """

    def __init__(
        self, setting: Setting, hops: Hops, truth: Float[Array, "n d"], gram: Float[Array, "n D p"]
    ) -> None:
        """Take the system, the position, true w, and roots of each group's Gram matrix, side by side."""
        columns = columns_of(tuple(map(int, hops.counts)), truth.shape[1])
        self.weights = np.repeat(hops.weights, columns, axis=1)
        self.truth, self.inputs, self.label_noise = truth, gram[:, :-1], setting.label_noise * gram[:, -1]
        self.noise = np.sqrt(setting.analogue_variance) * hops.root()

    def ask(self, asked: Float[Array, "n K d"], control: Float[Array, "n d"], normals: Normals) -> None:
        """Begin a phase: what is left of each label, and the noise of its messages."""
        self.asked, self.offset = asked, along(asked, control - self.truth)
        self.residual = ((self.truth - control)[:, None] @ self.inputs)[:, 0] + self.label_noise
        self.drawn = np.tensordot(self.noise, normals[: self.noise.shape[1]], 1)

    def after(self, hop: int) -> Float[Array, "n K"]:
        """The means with the weights of the hop."""
        moment = along(self.inputs, self.weights[hop] * self.residual)
        return along(self.asked, moment) + self.offset + self.drawn[hop]


class RelayChannel:
    """What the channel makes of the mean: clips and rounds the first message, adds noise at each later hop.

    Distortion by the quantiser is a part of each message, and goes with the same weights from hop to hop.
    """

    def __init__(self, setting: Setting, hops: Hops, truth: Float[Array, "n d"]) -> None:
        """Take the system, the position, true w."""
        self.clipped, self.truth, self.root = bool(np.isfinite(setting.clip)), truth, hops.root()
        self.quantisers = [quantiser_of(replace(setting, effective=1.0)) for _ in self.root.T]
        passed_on = hops.passes() - 1.0 / hops.effective  # noise of the first message is part of the mean
        self.noise = np.sqrt(setting.channel_variance * np.maximum(passed_on, 0.0))

    def ask(self, asked: Float[Array, "n K d"], control: Float[Array, "n d"], normals: Normals) -> None:
        """Begin a phase: what the quantiser does to its messages."""
        self.mean = along(asked, self.truth)
        if self.clipped:
            message = (asked, self.truth - control, control)
            drawn = zip(self.quantisers, normals, strict=False)
            through = np.stack([each.transmit(self.mean, *message, fresh) for each, fresh in drawn])
            self.mean, self.gain, _ = self.quantisers[0].moments(*message)
            self.distortion = through - self.mean

    def hold(
        self, hop: int, deviation: Float[Array, "n K"], normals: Float[Array, "n K"]
    ) -> Float[Array, "n K"]:
        """What is held after `hop` + 1 hops, from the mean of the messages less u.w and normal numbers."""
        if self.clipped:
            deviation = self.gain * deviation + np.tensordot(self.root[hop], self.distortion, 1)
        return self.mean + deviation + self.noise[hop] * normals


def along(rows: Float[Array, "n K d"], vector: Float[Array, "n d"]) -> Float[Array, "n K"]:
    """Scalar product of each row with a vector."""
    return (rows @ vector[..., None])[..., 0]
