"""Capacity: how many bits about w one round can bring to a token.

A token learns of w through its fields alone, and a field is an integer: the sum of n wires of b bits.
Each bound here holds for what is really on the wire, after clipping and rounding. The textbook capacity
log2(1 + n P / tau^2) / 2 does not: noise is added before a message is clipped and rounded, so that the
field is no function of the noisy sum, and a message far beyond the clip arrives without any noise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, roots_legendre
from scipy.stats import binom

from agents.prior import Prior

Array = np.ndarray
_POINTS = 20_000  # of the step functions that hold the collision integral from above


@dataclass(frozen=True)
class Wire:
    """The channel behind one field: n messages, each clipped to [-c, c] and rounded to b bits.

    Attributes:
        messages: n, messages in the sum, all with weight 1.
        bits: b, bits of a message.
        clip: c, largest magnitude of a message.
        noise: tau, standard deviation of the noise added to each message before clipping and rounding.

    Source: THEORY.md sections 5 and 7.4.

    Example:
        >>> round(Wire(messages=32, bits=16, clip=8.0, noise=1.0).integer_bits(), 3)
        21.0
    """

    messages: int
    bits: int
    clip: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.messages < 1 or self.bits < 1 or self.clip <= 0 or self.noise < 0:
            raise ValueError(f"messages, bits and clip must be positive and noise not negative, got {self}")

    @property
    def step(self) -> float:
        """Distance between neighbouring levels of the quantiser."""
        return 2.0 * self.clip / (2.0**self.bits - 1.0)

    def integer_bits(self, addressed: bool = False) -> float:
        """Bits that a field can bring, whatever is said: the logarithm of how many fields there are.

            log2(n (2^b - 1) + 1);   addressed:   log2(sum_{k=1..n} (k (2^b - 1) + 1))

        Addressed: the tokens ask different codes, so that a receiver also hears how many messages k are
        about its own. On the complete graph, with static codes and with heads k is known beforehand.

        Source: THEORY.md section 7.4; entropy is at most the logarithm of the number of values.

        Example:
            >>> Wire(1, 4, 1.0).integer_bits(), round(2 ** Wire(3, 1, 1.0).integer_bits(addressed=True))
            (4.0, 9)
        """
        largest, count = 2.0**self.bits - 1.0, float(self.messages)
        fields = largest * count * (count + 1) / 2 + count if addressed else largest * count + 1
        return float(np.log2(fields))

    def noise_entropy(self, margin: float = 4.0, free: int | None = None) -> float:
        """Bits of a field that are noise, whatever is said, if k values do not exceed c - margin tau.

            f(k) = -log2 (1 / 2 pi) integral over [-pi, pi] of min(1, |phi| + 4 Q(margin))^2k

        |phi| <= exp(-s^2 t^2 / 2) + 2 sum_{l >= 1} exp(-s^2 pi^2 (2l - 1)^2 / 2), s = tau / step, is the
        characteristic function of a rounded normal variable by Poisson summation; clipping moves it by
        at most 4 Q(margin), Q the tail of the normal law. Entropy is at least collision entropy, which
        for a normal law is log2(e / 2) / 2 = .22 bits less. A step function holds the integral from above.

        Args:
            margin: distance kept from the clip, in units of tau.
            free: k, how many messages keep it; all n if left out.

        Source: Parseval's theorem; A. Renyi (1961) for the order of entropies.

        Example:
            >>> wire = Wire(32, 16, 64.0, noise=1.0)
            >>> gap = 0.5 * np.log2(4 * np.pi * 32 / wire.step**2) - wire.noise_entropy(6.0)
            >>> bool(0 < gap < 0.001)
            True
        """
        ratio = self.noise / self.step
        count = self.messages if free is None else free
        if ratio < 1e-3 or not count:
            return 0.0
        folded = 2.0 * np.exp(-0.5 * (ratio * np.pi * (2 * np.arange(50) + 1)) ** 2).sum()
        extra = folded + 4.0 * ndtr(-margin)
        # The integrand falls within 1 / (s sqrt k): a grid that is fine there and ends at pi.
        knee = min(np.pi, 12.0 / (ratio * np.sqrt(count)))
        grid = np.concatenate([np.linspace(0, knee, _POINTS), np.linspace(knee, np.pi, 200)])
        height = np.minimum(1.0, np.exp(-0.5 * (ratio * grid) ** 2) + extra) ** (2 * count)
        return max(0.0, -float(np.log2((height[:-1] * np.diff(grid)).sum() / np.pi)))

    def noisy_bits(self, saturation: float, power: float | None = None, margin: float = 4.0) -> float:
        """Bits about w that a field of noisy messages can bring: its entropy less that of the noise.

            log2(2 pi e (n^2 P / step^2 + 1/12)) / 2 - (1 - p) f(n),   never more than `integer_bits`

        The entropy of an integer is at most that of a normal variable of the same variance plus 1/12;
        given w and all that was heard, noise remains on every message that keeps off the clip. f is
        concave and f(0) = 0, so its mean over how many do is at least (1 - p) f(n). For a wide clip this is
        log2((e/2) n P / tau^2) / 2. Certified if p and P are: for measured ones, up to their error.

        Args:
            saturation: p, probability that a value before noise exceeds c - margin tau in magnitude.
            power: P, second moment E[field^2] of the field as heard, noise included; c^2 if left out.
            margin: the margin of p, in units of tau.

        Source: THEORY.md section 7.4, corrected for clipping and rounding; T. M. Cover and J. A. Thomas,
            Elements of Information Theory, problem 8.7, for the entropy of an integer.

        Example:
            >>> wire = Wire(32, 16, 64.0, noise=1.0)
            >>> 2.6 < wire.noisy_bits(saturation=0.0, power=1.0, margin=6.0) < 2.8
            True
        """
        if not 0.0 <= saturation <= 1.0:
            raise ValueError(f"saturation is a probability, got {saturation}")
        return max(0.0, self._entropy(power) - (1.0 - saturation) * self.noise_entropy(margin))

    def query_bits(self, prior: Prior, query: Float[Array, " d"], label_noise: float) -> float:
        """Bits that a field about a query fixed beforehand can bring, from the prior alone.

        For m = (u.x)(w.x + sigma e), without a control: every round of a static policy without control
        variate, and the first round of any policy whose prior mean is zero. The power is at most

            sqrt P <= sqrt(E r^2 + E[b + r^2] / n + tau^2 / n) + sqrt(E (|a| - c)_+^2) + step / 2

        with r = u.w, b = |w|^2 + sigma^2, a = m + tau e'. Given w the messages are independent, so that
        the number K that keep off the clip is binomial, and the noise is at least f(k) P(K >= k) for any
        k. The best of several margins and k counts. Certified, up to the rounding of integrals over u.x.

        Args:
            prior: a discrete prior.
            query: u, a unit vector.
            label_noise: sigma.

        Raises:
            ValueError: if the prior has a Gaussian part, or the query is no unit vector.

        Source: THEORY.md sections 5 and 7.4; Isserlis' theorem for the moments of m, Minkowski's
            inequality for what clipping and rounding add.

        Example:
            >>> from agents.prior import tree
            >>> prior = tree(3, 2, 0.8, 7)
            >>> 2.0 < Wire(32, 16, 32.0, 1.0).query_bits(prior, prior.axes[0], 0.1) < 2.5
            True
        """
        if prior.factor.shape[1]:
            raise ValueError("proven for discrete priors: measure the power and saturation of this one")
        if abs(np.linalg.norm(query) - 1.0) > 1e-9:
            raise ValueError(f"a query has norm 1, this one {np.linalg.norm(query)}")
        along = prior.atoms @ query
        scale = (prior.atoms**2).sum(axis=1) + label_noise**2
        mean_square = along**2 + (scale + along**2 + self.noise**2) / self.messages
        excess = prior.weights @ _excess(along, scale, self.noise, self.clip)
        root = np.sqrt(prior.weights @ mean_square) + np.sqrt(excess) + self.step / 2
        noise = 0.0
        for margin in np.arange(1.5, 6.1, 0.5):
            limit = self.clip - margin * self.noise
            beyond = _tails(along, scale, limit) if limit > 0 else np.ones_like(along)
            for share in (0.5, 0.75, 0.9, 0.95, 1.0):
                free = int(np.ceil(share * self.messages))
                enough = float(prior.weights @ binom.sf(free - 1, self.messages, 1.0 - beyond))
                noise = max(noise, enough * self.noise_entropy(float(margin), free))
        return max(0.0, self._entropy(float(root**2)) - noise)

    def _entropy(self, power: float | None) -> float:
        """Largest entropy of a field of that second moment, bits."""
        largest = self.integer_bits()
        if power is None:
            return largest
        variance = (self.messages / self.step) ** 2 * power
        return min(largest, 0.5 * float(np.log2(2 * np.pi * np.e * (variance + 1 / 12))))


def _half_line() -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
    """Nodes |u.x| up to 12 standard deviations, and weights for its law."""
    nodes, weights = roots_legendre(400)
    factor = 6.0 * (nodes + 1.0)
    return factor, 6.0 * weights * np.exp(-0.5 * factor**2) * np.sqrt(2.0 / np.pi)


def _tails(along: Float[Array, " M"], scale: Float[Array, " M"], limit: float) -> Float[Array, " M"]:
    """P(|m| > limit) under each atom, given u.x an integral over a normal law."""
    factor, density = _half_line()
    mean = along[:, None] * factor**2
    spread = np.sqrt(np.maximum(scale - along**2, 1e-300))[:, None] * factor
    beyond = ndtr((mean - limit) / spread) + ndtr((-mean - limit) / spread)
    return np.minimum(beyond @ density, 1.0)


def _excess(
    along: Float[Array, " M"], scale: Float[Array, " M"], noise: float, clip: float
) -> Float[Array, " M"]:
    """E (|m + tau e| - c)_+^2 under each atom: what clipping takes away."""
    factor, density = _half_line()
    mean = along[:, None] * factor**2
    variance = np.maximum(scale - along**2, 1e-300)[:, None] * factor**2 + noise**2
    spread, total = np.sqrt(variance), np.zeros_like(variance)
    for over in (mean - clip, -mean - clip):
        bell = np.exp(-0.5 * (over / spread) ** 2) / np.sqrt(2 * np.pi)
        total += (variance + over**2) * ndtr(over / spread) + over * spread * bell
    return np.maximum(total @ density, 0.0)
