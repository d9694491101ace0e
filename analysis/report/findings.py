"""What each preset of a sweep shows: claims with effects and intervals, panels, and one sentence.

Each function takes the tidy table of its sweep, at full or at quick size, and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.claims import Claim
from analysis.measures.needed import TARGET, Measured, borne, each, ratio, slope
from analysis.plots.panels import Panel
from analysis.plots.style import FAMILIES

_SOLVED = f"{100 * TARGET:g} %"
_TREE = "tree"


@dataclass(frozen=True, eq=False)
class Finding:
    """What a sweep shows.

    Attributes:
        sentence: the verdict; it says so where a claim does not hold.
        claims: columns as the fields of `Claim`.
        panels: of the figure.
        caption: below it.
    """

    sentence: str
    claims: pd.DataFrame
    panels: Sequence[Panel]
    caption: str


def depth(table: pd.DataFrame) -> Finding:
    """How many rounds trees of several levels take, and Gaussians of the same covariance."""
    agents = table[table["policy.kind"] != "learned"]
    rounds = each(agents[agents["prior.kind"] == _TREE], ["policy.kind", "prior.levels"])
    rounds["series"] = [f"{policy} agents" for policy in rounds["policy.kind"]]
    adaptive, static = (rounds[rounds["policy.kind"] == kind] for kind in ("adaptive", "static"))
    # One level is a single yes or no, for which any agents need a part of a round.
    linear = _slope_of(adaptive[adaptive["prior.levels"] > 1], "prior.levels")
    growth = _slope_of(static[static["prior.levels"] > 1], "prior.levels", log=True)
    deepest = int(adaptive["prior.levels"].max())
    few = agents[agents["round"] == agents["prior.levels"]].copy()
    few["series"] = [
        f"{policy} agents, {'tree' if prior == _TREE else 'Gaussian'}"
        for policy, prior in zip(few["policy.kind"], few["prior.kind"], strict=True)
    ]
    ends: Any = few.set_index(["series", "prior.levels"])
    null = ratio(ends.loc["adaptive agents, Gaussian", deepest], ends.loc["adaptive agents, tree", deepest])
    claims = [
        _claim("Adaptive agents need about one round for each level of a tree",
               f"rounds to a risk of {_SOLVED} gained by one level more", linear, "0.8 to 1.2",
               0.8 < linear.value < 1.2),
        _claim("Static agents need rounds that grow exponentially with the levels",
               f"log2 of the rounds to {_SOLVED} gained by one level more", growth, "above 0.7",
               growth.interval[0] > 0.7),
        _claim("It is the hierarchy that pays, beyond mean and covariance",
               f"risk of adaptive agents on the Gaussian over the tree, {deepest} levels and rounds", null,
               "above 5", null.interval[0] > 5),
    ]  # fmt: skip
    trained = _last(table[table["policy.kind"] == "learned"])
    trained["series"] = [
        f"transformer, {'tree' if prior == _TREE else 'Gaussian'}{'' if forward else ', no feedforward'}"
        for prior, forward in zip(
            trained["prior.kind"], trained["transformer.feedforward"].fillna(True), strict=True
        )
    ]
    told = ""
    if len(trained):
        level = int(trained["prior.levels"].max())
        here: Any = trained[trained["prior.levels"] == level].set_index("series")
        gain = ratio(here.loc["transformer, Gaussian"], here.loc["transformer, tree"])
        claims.append(
            _claim("Transformers as deep as the tree use its hierarchy",
                   f"risk on the Gaussian over risk on the tree, {level} levels and layers", gain, "above 2",
                   gain.interval[0] > 2)
        )  # fmt: skip
        told = (
            f"; with {level} layers a transformer makes {gain.value:.3g} times less error on the tree than "
            "on the Gaussian"
        )
    sentence = (
        f"A level more costs adaptive agents {_told(linear)} rounds, while static ones need "
        f"{2**growth.value:.2f} times as many: {_told(_row(adaptive, deepest))} against "
        f"{_told(_row(static, deepest))} for {deepest} levels; after {deepest} rounds adaptive agents make "
        f"{null.value:.3g} times more error on the Gaussian than on the tree{told}"
    )
    return _finding(
        sentence,
        claims,
        [
            Panel(_xy(rounds, "prior.levels"), "Depth that a tree needs", "levels of the tree",
                  f"rounds to a risk of {_SOLVED}"),
            Panel(_xy(pd.concat([few, trained]), "prior.levels", theory=True), "As many rounds as levels",
                  "levels, and rounds or layers"),
        ],
        "Agents and transformers of 64 tokens, one scalar a round, τ = 1",
    )  # fmt: skip


def bandwidth(table: pd.DataFrame) -> Finding:
    """What channels, bits and rounds are worth in terms of each other."""
    rounds = each(table, ["channel.channels", "channel.bits"])
    most, fewest = int(rounds["channel.bits"].max()), int(rounds["channel.bits"].min())
    wide = rounds[rounds["channel.bits"] == most]
    exchange = _slope_of(wide.assign(place=np.log2(wide["channel.channels"])), "place", log=True)
    one = rounds[rounds["channel.channels"] == 1].set_index("channel.bits")
    cost = {bits: _quotient(one.loc[bits], one.loc[most]) for bits in (4, fewest)}
    spent = rounds.assign(value=rounds["value"] * rounds["channel.channels"] * rounds["channel.bits"],
                          se=rounds["se"] * rounds["channel.channels"] * rounds["channel.bits"])  # fmt: skip
    cheapest = spent.sort_values("value").iloc[0]
    claims = [
        _claim("Channels replace rounds, at less than one for one",
               f"log2 of the rounds to {_SOLVED} by a doubling of the channels", exchange, "-1 to 0",
               exchange.interval[0] > -1 and exchange.interval[1] < 0),
        _claim("Four bits a scalar are nearly as good as many",
               f"rounds to {_SOLVED} with 4 bits over those with {most}", cost[4], "below 1.1",
               cost[4].interval[1] < 1.1),
        _claim("Few bits cost rounds", f"rounds to {_SOLVED} with {fewest} bits over those with {most}",
               cost[fewest], "above 1", cost[fewest].interval[0] > 1),
    ]  # fmt: skip
    sentence = (
        f"Doubling the channels of a round takes {2**exchange.value:.2f} times the rounds; with 4 bits a "
        f"scalar agents need {_told(cost[4])} and with {fewest} bits {_told(cost[fewest])} times the rounds "
        f"that they need with {most}; fewest bits in all are sent with K = {cheapest['channel.channels']:g} "
        f"and {cheapest['channel.bits']:g} bits a scalar"
    )
    named = rounds.assign(series=[f"K = {count}" for count in rounds["channel.channels"]])
    paid = spent.assign(series=[f"K = {count}" for count in spent["channel.channels"]])
    return _finding(
        sentence,
        claims,
        [
            Panel(_xy(named, "channel.bits"), "Rounds that bits and channels cost", "bits of a scalar",
                  f"rounds to a risk of {_SOLVED}", log_x=True, log_y=False),
            Panel(_xy(paid, "channel.bits"), "What is sent in all", "bits of a scalar",
                  "bits a token sends, without codes", log_x=True, log_y=False),
        ],
        "Adaptive agents, a tree of four levels, 64 tokens, τ = 1",
    )  # fmt: skip


def context(table: pd.DataFrame) -> Finding:
    """What more examples help adaptive and static agents, as many rounds as levels."""
    last = _last(table)
    names = {("adaptive", "auto"): "adaptive", ("static", "codes"): "static, code by code",
             ("static", "pooled"): "static, pooled"}  # fmt: skip
    last["series"] = [
        names[kind, order] for kind, order in zip(last["policy.kind"], last["policy.order"], strict=True)
    ]
    at: Any = last.set_index(["series", "task.tokens"])
    most, middle, slow = int(last["task.tokens"].max()), 64, "static, code by code"
    flat = ratio(at.loc[(slow, most)], at.loc[(slow, middle)])
    last["doublings"] = np.log2(last["task.tokens"])
    tokens: Any = each(last, ["series"], "doublings").set_index("series")
    apart = Measured(
        float(tokens["value"]["static, pooled"] - tokens["value"]["adaptive"]),
        float(np.hypot(tokens["se"]["static, pooled"], tokens["se"]["adaptive"])),
    )
    claims = [
        _claim("Static queries, code by code, gain nothing from more examples",
               f"risk at {most:,} tokens over that at {middle}", flat, "above 0.9", flat.interval[0] > 0.9),
        _claim("Pooled queries need more examples than adaptive ones",
               f"log2 of the tokens to a risk of {_SOLVED}, less that of adaptive agents", apart, "above 0.5",
               apart.interval[0] > 0.5),
    ]  # fmt: skip
    first, pooled = (2 ** tokens["value"][name] for name in ("adaptive", "static, pooled"))
    sentence = (
        f"In three rounds adaptive agents get to a risk of {_SOLVED} with {first:.0f} tokens and pooled ones "
        f"with {pooled:.0f}; static ones that ask code after code do not with any: {middle} tokens leave "
        f"{at.loc[(slow, middle)]['risk']:.3f}, {most:,} leave {at.loc[(slow, most)]['risk']:.3f}"
    )
    return _finding(
        sentence,
        claims,
        [Panel(_xy(last, "task.tokens", theory=True), "What context helps", "tokens N", log_x=True)],
        "A tree of three levels, three rounds, one scalar a round, τ = 1",
    )


def locality(table: pd.DataFrame) -> Finding:
    """What sparse graphs and bottlenecks cost in rounds."""
    last = _last(table)
    rounds = each(last, ["graph.kind"], "run.rounds").set_index("graph.kind")
    here: Any = rounds
    ring = _quotient(here.loc["ring"], here.loc["random_regular"])
    shortest = float(last["run.rounds"].min())  # in which all is known where all hear all
    beyond = Measured(
        float(here.loc["random_regular"]["value"]) - shortest, float(here.loc["random_regular"]["se"])
    )
    z: Any = (last["risk"] - last["theory"]) / np.maximum(np.hypot(last["risk_se"], last["theory_se"]), 1e-6)
    # The largest of n independent scores exceeds 4.5 with a probability below n / 140,000.
    agree = Measured(float(np.nanmax(np.abs(z))), 0.0)
    claims = [
        _claim("Locality is paid in rounds, also on an expander",
               f"rounds to {_SOLVED} on a random regular graph, less {shortest:g}", beyond, "above 0",
               beyond.interval[0] > 0),
        _claim("Distance is paid on top", f"rounds to {_SOLVED} on a ring over a random regular graph",
               ring, "above 1", ring.interval[0] > 1),
        _claim("Theory knows the price", "largest deviation of agents from theory, standard errors", agree,
               "below 4.5", agree.value < 4.5),
    ]  # fmt: skip
    listed = ", ".join(
        f"{str(kind).replace('_', ' ')} {_told(Measured(row['value'], row['se']))}"
        for kind, row in rounds.iterrows()
    )
    named = last.assign(series=[kind.replace("_", " ") for kind in last["graph.kind"]])
    looks = {kind.replace("_", " "): look for kind, look in FAMILIES.items()}
    return _finding(
        f"Rounds of gossip to a risk of {_SOLVED}: {listed}",
        claims,
        [
            Panel(
                _xy(named, "run.rounds", theory=True),
                "What locality costs",
                "rounds",
                log_x=True,
                looks=looks,
                line=TARGET,
            )
        ],
        "Gossip of 64 tokens on graphs of degree 4, a tree of three levels",
    )  # fmt: skip


def crossover(table: pd.DataFrame) -> Finding:
    """The gain of adaptivity, as a tree is blurred into a Gaussian."""
    last = _last(table)
    sides: Any = last.pivot(index="prior.jitter", columns="policy.kind", values=["risk", "risk_se"])
    adaptive, static = sides["risk"]["adaptive"], sides["risk"]["static"]
    quotient = adaptive / static
    error = quotient * np.hypot(
        sides["risk_se"]["adaptive"] / adaptive.clip(lower=1e-12), sides["risk_se"]["static"] / static
    ).clip(upper=1.0)
    gain = pd.DataFrame(
        {"prior.jitter": quotient.index, "value": 1 - quotient.to_numpy(), "se": error.to_numpy()}
    )
    gain["series"] = "1 - adaptive / static"
    rises = gain["value"].diff().iloc[1:] / np.hypot(gain["se"].iloc[1:], gain["se"].iloc[:-1].to_numpy())
    ends = [gain.iloc[index] for index in (0, -1)]
    first, final = (Measured(float(row["value"]), float(row["se"])) for row in ends)
    worst = Measured(float(rises.max()), 0.0)
    halved = gain[gain["value"] <= 0.5]["prior.jitter"]
    half = float(np.interp(-0.5, -gain["value"], gain["prior.jitter"]))
    if gain["prior.jitter"].iloc[0] != 0 or halved.empty:
        raise KeyError("prior.jitter = 0, or shares at which half of the gain is lost")
    claims = [
        _claim("On a tree adaptivity gains nearly all", "1 - risk of adaptive over static agents, no jitter",
               first, "above 0.9", first.interval[0] > 0.9),
        _claim("On what is nearly a Gaussian it gains nothing",
               f"the same at a share of {gain['prior.jitter'].iloc[-1]:g}", final, "0 within 0.05",
               abs(final.value) < 0.05),
        _claim("It falls all the way", "largest rise between two shares, standard errors", worst, "below 3",
               worst.value < 3),
    ]  # fmt: skip
    sentence = (
        f"The share of the error that adaptivity saves falls from {_told(first)} on the tree to "
        f"{_told(final)} where {100 * gain['prior.jitter'].iloc[-1]:g} % of the variance is Gaussian, and is "
        f"a half at {100 * half:.0f} %"
    )
    named, blurred = last.assign(series=last["policy.kind"]), "share of the variance that is Gaussian"
    return _finding(
        sentence,
        claims,
        [
            Panel(_xy(named, "prior.jitter", theory=True), "From tree to Gaussian", blurred, log_y=False),
            Panel(_xy(gain, "prior.jitter"), "What adaptivity saves", blurred,
                  "1 - risk of adaptive / static", log_y=False),
        ],
        "64 tokens, three rounds, τ = 0.5",
    )  # fmt: skip


def feedforward(table: pd.DataFrame) -> Finding:
    """What feedforward blocks are for: transformers with and without, on a tree and on its Gaussian."""
    last = _last(table)
    last["series"] = [
        f"{'tree' if prior == _TREE else 'Gaussian'}, {'with' if forward else 'no'} feedforward"
        for prior, forward in zip(last["prior.kind"], last["transformer.feedforward"], strict=True)
    ]
    best = last.loc[last.groupby(["series", "run.rounds"])["risk"].idxmin()]  # over seeds of training
    at: Any = best.set_index(["series", "run.rounds"])
    deep = 3
    gains = {
        name: ratio(at.loc[(f"{name}, no feedforward", deep)], at.loc[(f"{name}, with feedforward", deep)])
        for name in ("tree", "Gaussian")
    }
    first = ratio(at.loc[("tree, no feedforward", 1)], at.loc[("tree, with feedforward", 1)])
    claims = [
        _claim("On a tree feedforward blocks are needed",
               f"risk without over risk with them, {deep} layers", gains["tree"], "above 2",
               gains["tree"].interval[0] > 2),
        _claim("On the Gaussian they are not", f"the same, {deep} layers", gains["Gaussian"], "0.9 to 1.1",
               0.9 < gains["Gaussian"].value < 1.1),
        _claim("Nor in the first layer, with nothing to adapt to", "the same on a tree, one layer", first,
               "0.9 to 1.2", 0.9 < first.value < 1.2),
    ]  # fmt: skip
    sentence = (
        f"Without feedforward blocks a transformer of {deep} layers makes {_told(gains['tree'])} times the "
        f"error on a tree, and {_told(gains['Gaussian'])} times on the Gaussian"
    )
    return _finding(
        sentence,
        claims,
        [Panel(_xy(best, "run.rounds"), "What feedforward blocks are for", "layers")],
        "Transformers of 64 tokens, a tree of three levels and its Gaussian, τ = 1; best of the seeds",
    )


def byzantine(table: pd.DataFrame) -> Finding:
    """How many liars the tokens bear, with and without a trimmed mean."""
    last = _last(table).sort_values(["intervene.trim", "intervene.tokens"])
    tokens = 64  # as the preset has it, which is what a finding speaks of
    last["series"] = [
        "mean" if not trim else f"mean without {100 * trim:g} % at either end"
        for trim in last["intervene.trim"]
    ]
    last["share"] = last["intervene.tokens"] / tokens
    bears = {name: borne(part, "share") for name, part in last.groupby("series", sort=False)}
    (plain, trimmed), names = bears.values(), list(bears)  # a plain mean first
    price: Any = last[last["intervene.tokens"] == 0].set_index("series")["risk"]
    costs = Measured(float(price[names[1]] - price[names[0]]), 0.0)
    claims = [
        _claim("A mean bears hardly any liar", f"share of liars at which the risk passes {_SOLVED}", plain,
               "below 0.05", plain.interval[1] < 0.05),
        _claim("A trimmed mean bears many", "the same, with a fifth left out at either end", trimmed,
               "above 0.1", trimmed.interval[0] > 0.1),
        _claim("It costs little where nobody lies", "risk with it less risk without", costs, "below 0.01",
               costs.value < 0.01),
    ]  # fmt: skip
    sentence = (
        f"The risk passes {_SOLVED} when {100 * plain.value:.1f} % of the tokens lie as loudly as the "
        f"channel allows; where each token leaves out the largest and smallest fifth of what it hears, when "
        f"{100 * trimmed.value:.1f} ± {100 * trimmed.se:.1f} % do"
    )
    return _finding(
        sentence,
        claims,
        [Panel(_xy(last, "share"), "How many liars are borne", "share of tokens that lie", line=TARGET)],
        "Adaptive agents, 64 tokens, a tree of three levels, three rounds, τ = 0.5; liars say the clip",
    )


def finite_size(table: pd.DataFrame) -> Finding:
    """How the deviation from the mean field falls with the number of tokens."""
    last = _last(table)
    deviation = last.assign(
        value=(last["theory"] - last["risk"]), se=np.hypot(last["risk_se"], last["theory_se"]),
        series="deviation", x=last["task.tokens"],
    ).drop(columns=["theory", "theory_se"])  # fmt: skip
    large = deviation[deviation["task.tokens"] >= 16]
    exponent = slope(
        np.log(large["task.tokens"].to_numpy(float)),
        np.log(large["value"].clip(lower=1e-9).to_numpy(float)),
        (large["se"] / large["value"].clip(lower=1e-9)).to_numpy(float),
    )
    claims = [
        _claim("The mean field is approached as one over N",
               "exponent of the deviation in N, from 16 tokens on", exponent, "-1 within 0.2, or two s.e.",
               abs(exponent.value + 1) < max(0.2, 2 * exponent.se) < 0.6),
    ]  # fmt: skip
    most = deviation.sort_values("task.tokens").iloc[-1]
    sentence = (
        f"The risk of agents deviates from the mean field as N to the power {exponent.value:.2f} ± "
        f"{exponent.se:.2f}; at {most['task.tokens']:g} tokens by "
        f"{_told(Measured(most['value'], most['se']))} E|w|²"
    )
    rows = deviation[["series", "x", "value", "se"]]
    return _finding(
        sentence,
        claims,
        [Panel(rows, "Finite size", "tokens N", "mean field less agents, risk / E|w|²", log_x=True)],
        "Adaptive agents, a tree of two levels, two rounds; label noise grows as √N",
    )


# By the names that sweep files give as `finding`.
FINDINGS: dict[str, Callable[[pd.DataFrame], Finding]] = {
    "depth": depth,
    "bandwidth": bandwidth,
    "context": context,
    "locality": locality,
    "crossover": crossover,
    "feedforward": feedforward,
    "byzantine": byzantine,
    "finite-size": finite_size,
}


def _claim(claim: str, test: str, effect: Measured, wanted: str, holds: bool | np.bool_) -> Claim:
    return Claim(claim, test, effect.value, *effect.interval, wanted, bool(holds))


def _finding(sentence: str, claims: Sequence[Claim], panels: Sequence[Panel], caption: str) -> Finding:
    """What was decided, with claims as a table, and those that do not hold named."""
    table = pd.DataFrame(claims, columns=Claim._fields)
    return Finding(_closed(sentence, claims), table, panels, caption)


def _closed(sentence: str, claims: Sequence[Claim]) -> str:
    """The sentence, and which claims do not hold."""
    wrong = [claim.claim for claim in claims if not claim.holds]
    return f"{sentence}." + (f" Does not hold: {'; '.join(wrong)}." if wrong else "")


def _last(table: pd.DataFrame) -> pd.DataFrame:
    """The last round of each point that is done."""
    done = table[table["status"] == "done"]
    return done.sort_values("round").groupby("point").tail(1).sort_values("point").copy()


def _xy(rows: pd.DataFrame, across: str, theory: bool = False) -> pd.DataFrame:
    found = pd.DataFrame({"series": rows["series"], "x": rows[across].astype(float)})
    measured = ("value", "se") if "value" in rows else ("risk", "risk_se")
    found["value"], found["se"] = (rows[name].astype(float) for name in measured)
    if theory and "theory" in rows:
        found["theory"] = rows["theory"].astype(float)
    return found.dropna(subset=["value"])


def _slope_of(rows: pd.DataFrame, across: str, log: bool = False) -> Measured:
    value, error = rows["value"].to_numpy(float), rows["se"].to_numpy(float)
    if log:
        value, error = np.log2(value), error / value / np.log(2)
    return slope(rows[across].to_numpy(float), value, error)


def _row(rows: pd.DataFrame, level: int) -> Measured:
    row = rows[rows["prior.levels"] == level].iloc[0]
    return Measured(float(row["value"]), float(row["se"]))


def _quotient(one: Any, other: Any) -> Measured:
    value = float(one["value"] / other["value"])
    return Measured(value, value * float(np.hypot(one["se"] / one["value"], other["se"] / other["value"])))


def _told(measured: Measured) -> str:
    """A number with its error, both to the digits that the error allows."""
    if not np.isfinite(measured.value):
        return "more than were tried"
    if np.isnan(measured.se):
        return f"at most {measured.value:.3g}"
    digits = 2 if measured.se <= 0 else max(0, min(4, 1 - int(np.floor(np.log10(measured.se)))))
    return f"{measured.value:.{digits}f} ± {measured.se:.{digits}f}"
