"""Reference posterior of a discrete prior from the exact law of a field, the answers to one code together.

Axes: n samples, M atoms, Q quadrature nodes, T fields, d dimensions.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from analysis.theory.evolution.law import mixture_over_g
from analysis.theory.evolution.posterior import Posterior
from analysis.theory.setting import Setting

Array = np.ndarray
_RESOLUTION = 0.1  # share of its variance that an answer keeps at least, given earlier ones


class Answers:
    """What one belief makes of all fields on the complete graph.

    With g = (1/n) sum_j (u.x_j)^2 of a code, its fields are jointly Gaussian around u.v_t + g u.q_t, with the
    covariance [g (q_t.q_s - (u.q_t)(u.q_s) + sigma^2) + c delta_ts] / n. Fields of different codes are
    independent. g is averaged over nodes that the first answer to a code places.

    Source: THEORY.md section 5, the exact law of a field.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(1, 2, 1.0, 1)
        >>> answers = Answers(Setting(prior, principal(prior), "adaptive", 1, 1, 50.0, 0.1, exact=True), 1)
        >>> answers.hear(np.zeros((1, 1), int), np.zeros((1, 1)), prior.atoms[:1])
        >>> bool(answers.belief().weights[0, 0] > 0.999)
        True
    """

    def __init__(self, setting: Setting, samples: int) -> None:
        """Believe the prior."""
        self.setting = setting
        self.logs = np.tile(np.log(np.maximum(setting.prior.weights, 1e-300)), (samples, 1))
        self.g: list[Float[Array, "n M Q"]] = []  # at the nodes of the first answer to a code
        self.codes: list[Int[Array, " n"]] = []
        self.offsets: list[Float[Array, "n M d"]] = []
        self.rows: list[list[Float[Array, "n M Q"]]] = []  # a triangular root of the covariance
        self.diagonal: list[Float[Array, "n M Q"]] = []
        self.whitened: list[Float[Array, "n M Q"]] = []
        self.joint: list[Float[Array, "n M Q"]] = []  # log density of the answers to a code so far

    def belief(self, more: Float[Array, "n M"] | float = 0.0) -> Posterior:
        """The posterior; with the log likelihood of something else."""
        logs, prior = self.logs + more, self.setting.prior
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        shape = logs.shape
        return Posterior(
            weights / weights.sum(axis=1, keepdims=True),
            np.broadcast_to(prior.atoms, (*shape, prior.dim)),
            np.zeros((*shape, 0, 0)),
        )

    def hear(
        self, codes: Int[Array, "n K"], control: Float[Array, "n d"], values: Float[Array, "n K"]
    ) -> None:
        """Take up the fields of one round."""
        for code, value in zip(codes.T, values.T, strict=True):
            self._hear_one(code, control, value)

    def _hear_one(
        self, code: Int[Array, " n"], control: Float[Array, "n d"], value: Float[Array, " n"]
    ) -> None:
        setting, count = self.setting, self.setting.effective
        query = setting.codebook.directions[code]
        offset = setting.prior.atoms - control[:, None]
        along = (offset @ query[..., None])[..., 0]
        reading = (query * control).sum(axis=1)
        rest = (offset**2).sum(axis=2) - along**2 + setting.label_noise**2
        rest = np.maximum(rest, setting.label_noise**2)
        excess, one = (value - reading)[:, None], np.ones((len(value), 1))
        g, before = mixture_over_g(excess, along, rest, setting.channel_variance * one, count * one)
        for index, earlier in enumerate(self.codes):
            same = (earlier == code)[:, None, None]
            g, before = np.where(same, self.g[index], g), np.where(same, self.joint[index], before)
        variance = g * rest[..., None]
        left = (variance + setting.channel_variance) / count
        miss = excess[..., None] - g * along[..., None]
        row: list[Float[Array, "n M Q"]] = []
        for index, then in enumerate(self.offsets):
            same = self.codes[index] == code
            common = (offset * then).sum(axis=2) - along * (then @ query[..., None])[..., 0]
            common = (common + setting.label_noise**2) * same[:, None] / count
            entry = common[..., None] * g
            for mine, theirs in zip(row, self.rows[index], strict=True):
                entry = entry - mine * theirs
            entry = entry / self.diagonal[index]
            row.append(entry)
            left = left - entry**2
            miss = miss - entry * self.whitened[index]
        resolved = _RESOLUTION * variance if self.codes else 0.0
        least = np.maximum(setting.channel_variance, resolved) / count
        diagonal = np.sqrt(np.maximum(left, least))
        joint = before - np.log(diagonal) - 0.5 * (miss / diagonal) ** 2
        self.logs = self.logs + logsumexp(joint, axis=2) - logsumexp(before, axis=2)
        self.g.append(g)
        self.codes.append(code)
        self.offsets.append(offset)
        self.rows.append(row)
        self.diagonal.append(diagonal)
        self.whitened.append(miss / diagonal)
        self.joint.append(joint)
