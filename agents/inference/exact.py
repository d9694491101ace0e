"""The posterior over a discrete prior from the law that a field really has, at any number of tokens.

Split the inputs x_j of n tokens that share a direction u and a control v into (u.x_j) u and the rest. With
q = w - v and g = (1/n) sum_j (u.x_j)^2, which is chi-squared with n degrees of freedom over n, a field is

    s | g  ~  Normal(u.v + g u.q,  [g (|q|^2 - (u.q)^2 + Delta + sigma^2) + c] / n)

with c the variance of the channel and Delta the mean squared distance of the senders' controls from the
listener's own. The cube root of g is nearly Gaussian; it is integrated out at a few nodes that lie, under
each atom, where the field says that g must be.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from agents.channel import Field
from agents.inference.answers import NODES
from agents.inference.base import LEAST_LABEL_NOISE, Inference, log_prior, normalised
from agents.reductions import components, dot, fold

Array = np.ndarray
ALONE = 1.0 + 1e-9  # effective number of tokens up to which a token heard but itself
_LEAST_ROOT = 0.05  # of the cube root of g, which the approximation would let fall below zero
RESOLUTION = 0.1  # share of its variance that a repeated answer keeps: nodes resolve g no finer
LEAST_CHANNEL = 1e-10  # variance that a channel is taken to add at least


def _hermite(nodes: int) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
    """Nodes and log weights of the average over a standard normal number."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points, np.log(weights / weights.sum())


RULE = _hermite(NODES)


class Answer(NamedTuple):
    """One field that was heard, whitened against earlier answers to the same code, node by node.

    Attributes:
        code: the direction it was about [n, B].
        control: the senders' control v, taken to be the listener's own [n, d, B].
        effective: effective number of tokens behind it [n, B].
        shares: g at each node, that of the first answer to the code [n, Q, M, B].
        rows: entries of the Cholesky factor for each earlier answer; None where none has this code
            [n, Q, M, B].
        scale: inverse of the diagonal entry [n, Q, M, B].
        innovation: what earlier answers did not predict, in standard deviations [n, Q, M, B].
        evidence: log density of all answers to the code so far, at each node, with the node's log weight,
            nats [n, Q, M, B].
    """

    code: Integer[Array, "n B"]
    control: Float[Array, "n d B"]
    effective: Float[Array, "n B"]
    shares: Float[Array, "n Q M B"]
    rows: tuple[Float[Array, "n Q M B"] | None, ...]
    scale: Float[Array, "n Q M B"]
    innovation: Float[Array, "n Q M B"]
    evidence: Float[Array, "n Q M B"]


class ExactBelief(NamedTuple):
    """Posterior in the form that the next field needs.

    Attributes:
        log_weights: log posterior of each atom up to a constant, nats [n, M, B].
        alone: the part of it that fields of one token brought, which heard but itself [n, M, B].
        times: how often each code was asked [n, C, B].
        positions: where each token stands [n, B].
        answers: all fields, oldest first; none where rounds are independent. `Answer`s here; who updates by
            compiled loops keeps them otherwise.
        weights: posterior probability of each atom, where it was read already [n, M, B].
        mean: posterior mean of w, likewise [n, d, B].
        heard: number of `answers` that are this belief's own.
    """

    log_weights: Float[Array, "n M B"]
    alone: Float[Array, "n M B"]
    times: Int[Array, "n C B"]
    positions: Int[Array, "n B"]
    answers: Any
    weights: Float[Array, "n M B"] | None = None
    mean: Float[Array, "n d B"] | None = None
    heard: int = 0


@dataclass(frozen=True, eq=False)
class ExactInference(Inference[ExactBelief]):
    """The update rule for a discrete prior, exact for one field of tokens that share their control.

    *Grouped*, the rounds that ask the same code share g, and their fields are jointly Gaussian given it:

        Cov(s_t, s_s) = [g (q_t.q_s - (u.q_t)(u.q_s) + sigma^2) + c delta_ts] / n

    exact where the same tokens answer each time with one control, as far as the nodes resolve g: a repeated
    answer keeps a tenth of its variance. Otherwise rounds are independent, and the
    log density of an answer to a code that was asked before counts with the weight `repeats`: the same
    tokens answer again, and what is new about it theory must say.

    Attributes:
        prior: discrete prior over w.
        codebook: unit directions that measurements are about.
        label_noise: sigma.
        channel_variance: variance that the channel adds to each message.
        grouped: treat the answers to one code jointly.
        disagreement: Delta after each round at each position; None for zero [L, N].
        repeats: weight of a repeated answer in each round, 0 to 1; None for 1 [L].

    Raises:
        ValueError: if the prior has a Gaussian part, under which an atom does not tell w.

    Source: THEORY.md section 5, the exact law of a field; the cube root of g is nearly Gaussian:
        E. B. Wilson and M. M. Hilferty (1931), doi:10.1073/pnas.17.12.684. A power of the likelihood:
        P. Gruenwald and T. van Ommen (2017), doi:10.1214/17-BA1085.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(1, 2, 1.0, 1)
        >>> inference = ExactInference(prior, principal(prior), label_noise=0.1, channel_variance=0.0)
        >>> belief = inference.start(tokens=1, prompts=1)
        >>> one = np.ones((1, 1, 1))
        >>> field = Field(np.zeros((1, 1, 1), int), one, 50 * one, 50 * one[0])
        >>> abs(float(inference.estimate(inference.hear(belief, field, None, 1)).item())) > 0.99
        True
    """

    grouped: bool = False
    disagreement: Float[Array, "L N"] | None = None
    repeats: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.prior.factor.shape[1]:
            raise ValueError("the exact law of a field needs a prior without a Gaussian part")

    def start(self, tokens: int, prompts: int, positions: Int[Array, " n"] | None = None) -> ExactBelief:
        """The prior, before anything was heard."""
        places = np.arange(tokens) if positions is None else np.asarray(positions)
        return ExactBelief(
            log_prior(self.prior, tokens, prompts),
            np.zeros((tokens, len(self.prior.weights), prompts)),
            np.zeros((tokens, len(self.codebook), prompts), dtype=np.int64),
            np.broadcast_to(places[:, None], (tokens, prompts)),
            (),
        )

    def hear(
        self, belief: ExactBelief, field: Field, control: Float[Array, "n d B"] | None, round: int
    ) -> ExactBelief:
        """Update on the K means of one round, each about a code of its own."""
        for channel in range(field.codes.shape[1]):
            code, effective = field.codes[:, channel], field.effective[:, channel]
            heard = effective > 0
            count = np.where(heard, effective, 1.0)
            noise = np.full(count.shape, max(self.channel_variance, LEAST_CHANNEL))
            if field.relayed is not None:
                noise = noise + self.channel_variance * (field.relayed[:, channel] - 1.0)
            answer, evidence = self._answer(
                belief, code, field.values[:, channel], count, noise, control, round
            )
            times = np.take_along_axis(belief.times, code[:, None], 1)
            if not self.grouped and self.repeats is not None:
                evidence = evidence * np.where(times > 0, self.repeats[round - 1], 1.0)
            evidence = np.where(heard[:, None], evidence, 0.0)
            counted = belief.times.copy()
            np.put_along_axis(counted, code[:, None], times + heard[:, None], 1)
            belief = belief._replace(
                log_weights=belief.log_weights + evidence,
                alone=belief.alone + np.where(count[:, None] <= ALONE, evidence, 0.0),
                times=counted,
            )
            if self.grouped:
                belief = belief._replace(answers=(*belief.answers, answer))
        return belief

    def told(
        self, belief: ExactBelief, inputs: Float[Array, "n d B"], labels: Float[Array, "n B"]
    ) -> ExactBelief:
        """The belief with one whole example: -(y - w.x)^2 / 2 sigma^2 for each atom.

        It takes the place of fields in which the token heard but itself, and knows less than the example.
        """
        columns = list(np.moveaxis(inputs, 1, 0)[:, :, None])
        residual = labels[:, None] - dot(columns, self._atoms())
        variance = max(self.label_noise, LEAST_LABEL_NOISE) ** 2
        others = belief.log_weights - belief.alone
        return belief._replace(log_weights=others - 0.5 * residual * residual / variance)

    def atoms(self, belief: ExactBelief) -> Float[Array, "n M B"]:
        """Posterior probability of each atom."""
        return normalised(belief.log_weights)

    def estimate(self, belief: ExactBelief) -> Float[Array, "n d B"]:
        """Posterior mean of w."""
        weights = self.atoms(belief)
        return np.stack([fold(weights * values[None, :, None]) for values in self.prior.atoms.T], axis=1)

    def variances(self, belief: ExactBelief) -> Float[Array, "n C B"]:
        """Posterior variance u' Cov[w] u along each direction u of the codebook."""
        weights = self.atoms(belief)
        result = np.empty((weights.shape[0], len(self.codebook), weights.shape[2]))
        for code, along in enumerate(self._along.T):
            centred = along[None, :, None] - fold(weights * along[None, :, None])[:, None]
            result[:, code] = fold(weights * (centred * centred))
        return result

    def spread(self, belief: ExactBelief) -> Float[Array, "n B"]:
        """Expected squared distance of w from its posterior mean."""
        mean = list(np.moveaxis(self.estimate(belief), 1, 0)[:, :, None])
        offset = [atom - part for atom, part in zip(self._atoms(), mean, strict=True)]
        return fold(self.atoms(belief) * dot(offset, offset))

    def asked(self, belief: ExactBelief) -> Int[Array, "n C B"]:
        """How often each code was asked, and answered."""
        return belief.times

    @cached_property
    def _along(self) -> Float[Array, "M C"]:
        """u.a of each atom and code."""
        return np.ascontiguousarray(
            np.stack([dot(list(self.prior.atoms.T), list(u)) for u in self.codebook.directions], axis=1)
        )

    def _atoms(self) -> list[Float[Array, "1 M 1"]]:
        return [values[None, :, None] for values in self.prior.atoms.T]

    def _answer(
        self,
        belief: ExactBelief,
        code: Integer[Array, "n B"],
        value: Float[Array, "n B"],
        count: Float[Array, "n B"],
        noise: Float[Array, "n B"],
        control: Float[Array, "n d B"] | None,
        round: int,
    ) -> tuple[Answer, Float[Array, "n M B"]]:
        """A field as an answer, and the log density it has under each atom given earlier answers, nats."""
        tokens, _, prompts = belief.log_weights.shape
        if control is None:
            control = np.zeros((tokens, self.prior.dim, prompts))
        query = components(self.codebook.directions, code)
        reading = dot(query, list(np.moveaxis(control, 1, 0)))[:, None]  # u.v
        offset = self._offset(control)
        seen = np.stack(components(self._along.T, code), axis=1)  # u.a
        along = seen - reading  # u.q
        spread = self.label_noise**2 + self._disagreement(belief.positions, round)
        rest = np.maximum(dot(offset, offset) - along * along, 0.0) + spread
        number, channel = count[:, None], noise[:, None]
        shares, before = _nodes(value[:, None] - reading, along, rest, channel, number)
        again = [(past, past.code == code) for past in belief.answers]
        for past, same in again:
            shares = np.where(same[:, None, None], past.shares, shares)
            before = np.where(same[:, None, None], past.evidence, before)
        rows: list[Float[Array, "n Q M B"] | None] = []
        common: list[Float[Array, "n M B"] | None] = []
        for past, same in again:
            common.append(None)
            if same.any():
                then = self._offset(past.control)
                shared = dot(offset, then) - along * (seen - _reading(query, past)) + self.label_noise**2
                common[-1] = shared * same[:, None] / np.sqrt(count * past.effective)[:, None]
            rows.append(None if common[-1] is None else np.empty(shares.shape))
        scale, innovation = np.empty(shares.shape), np.empty(shares.shape)
        for k in range(NODES):
            g = shares[:, k]
            whole = g * rest
            pivot, miss = (whole + channel) / number, value[:, None] - reading - g * along
            for index, (past, _) in enumerate(again):
                cross, row = common[index], rows[index]
                if cross is None or row is None:
                    continue
                entry = g * cross
                for mine, theirs in zip(rows[:index], past.rows, strict=True):
                    if mine is not None and theirs is not None:
                        entry = entry - mine[:, k] * theirs[:, k]
                entry = entry * past.scale[:, k]
                pivot, miss = pivot - entry * entry, miss - entry * past.innovation[:, k]
                row[:, k] = entry
            least = np.maximum(channel, RESOLUTION * whole) / number if again else channel / number
            scale[:, k] = 1.0 / np.sqrt(np.maximum(pivot, least))
            innovation[:, k] = miss * scale[:, k]
        evidence = before + np.log(scale) - 0.5 * innovation * innovation
        gained = _log_sum(evidence) - (_log_sum(before) if again else 0.0)
        return Answer(code, control, count, shares, tuple(rows), scale, innovation, evidence), gained

    def _offset(self, control: Float[Array, "n d B"]) -> list[Float[Array, "n M B"]]:
        """q = a - v under each atom, one array for each dimension."""
        return [atom - control[:, k, None] for k, atom in enumerate(self._atoms())]

    def _disagreement(self, positions: Int[Array, "n B"], round: int) -> Float[Array, "n 1 B"] | float:
        """Delta of each token in a round."""
        return 0.0 if self.disagreement is None else self.disagreement[round - 1][positions][:, None]


def _nodes(
    excess: Float[Array, "n 1 B"],
    along: Float[Array, "n M B"],
    rest: Float[Array, "n M B"],
    channel: Float[Array, "n 1 B"],
    count: Float[Array, "n 1 B"],
) -> tuple[Float[Array, "n Q M B"], Float[Array, "n Q M B"]]:
    """g at the nodes of a quadrature over it, and the log weight of each.

    With z standard normal, g = (1 - 2/9n + z sqrt(2/9n))^3. A field that is precise beside the spread of
    g u.q says what z is, so the nodes of a Gauss-Hermite rule are centred and scaled to the Gaussian
    approximation of its law given the field, and weighted by the ratio of the two laws.

    Args:
        excess: the field less u.v.
        along: u.q under each atom.
        rest: variance of one message at g = 1 without the channel's.
        channel: variance of the channel in one message.
        count: n.

    Source: E. B. Wilson and M. M. Hilferty (1931), doi:10.1073/pnas.17.12.684; adaptive Gauss-Hermite
        quadrature, Q. Liu and D. A. Pierce (1994), doi:10.1093/biomet/81.3.624.
    """
    narrow = 2.0 / (9.0 * count)
    width = np.sqrt(narrow)
    variance = (rest + channel) / count
    slope = 3.0 * width * along  # d(g u.q)/dz at g = 1
    shift = slope * (excess - along) / (variance + slope * slope)
    root = np.cbrt(np.maximum(1.0 + 3.0 * width * shift, _LEAST_ROOT**3))
    centre = (root - 1.0 + narrow) / width
    there = root * root
    slope, variance = slope * there, (there * root * rest + channel) / count
    spread = np.sqrt(variance / (variance + slope * slope))
    shares = np.empty((along.shape[0], NODES, *along.shape[1:]))
    weights = np.empty(shares.shape)
    constant = np.log(spread)
    for k, (node, weight) in enumerate(zip(*RULE, strict=True)):
        z = centre + spread * node
        root = np.abs(1.0 - narrow + z * width)  # for one token the Gaussian has a part below zero
        shares[:, k] = root * root * root
        weights[:, k] = (weight + 0.5 * node * node) + constant - 0.5 * z * z
    return shares, weights


def _reading(query: list[Float[Array, "n B"]], past: Answer) -> Float[Array, "n 1 B"]:
    """u.v of an earlier answer."""
    return dot(query, list(np.moveaxis(past.control, 1, 0)))[:, None]


def _log_sum(terms: Float[Array, "n Q M B"]) -> Float[Array, "n M B"]:
    """Logarithm of the sum of exponentials over nodes, added in their order."""
    top = terms.max(axis=1)
    total = np.exp(terms[:, 0] - top)
    for k in range(1, terms.shape[1]):
        total += np.exp(terms[:, k] - top)
    return np.asarray(top + np.log(total))
