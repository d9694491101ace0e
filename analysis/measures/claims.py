"""The paper's claims, each with the test that decides it: a table of effects, intervals and verdicts.

Only the paper's abstract and summaries were at hand; how a claim is tested is ours.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures.ablation import FULL, gaps, medians
from analysis.measures.probes import FunctionVectors

_EXACT = 1e-9  # answers that differ by less are the same
_CLOSE = 0.10  # share by which a transformer may be above theory
_EQUAL = 0.05  # share by which transformers may differ on the null
_NULL = "matched_gaussian"


class Claim(NamedTuple):
    """One claim, decided.

    Attributes:
        claim: what is said.
        test: what is measured, and over what.
        effect: measured.
        low, high: interval of the effect.
        needed: for the claim to hold.
        holds: whether it does.
    """

    claim: str
    test: str
    effect: float
    low: float
    high: float
    needed: str
    holds: bool


def verdicts(rows: pd.DataFrame, difference: float | None, vectors: FunctionVectors | None) -> pd.DataFrame:
    """Decide every claim that was measured.

    Args:
        rows: columns source (theory, transformer, limit, ...), prior, policy, depth, seed, risk, risk_se.
        difference: largest difference of an answer between transformers and agents that run their weights.
        vectors: the full transformer of the largest depth examined; None if it was not.

    Returns:
        A row for each claim, columns as the fields of `Claim`.
    """
    prior = str(rows["prior"].iloc[0])
    trained = rows[rows["source"] == "transformer"]
    scales = int(trained["depth"].max()) - 1
    found: list[Claim] = []
    if difference is not None:
        found.append(_same_computation(difference))
    if vectors is not None:
        found += _function_vectors(vectors)
    found += _as_predicted(rows, prior)
    found += _above_limit(rows)
    for variant, part in (
        ("no feedforward", "Feedforward blocks are needed"),
        ("constant queries", "Queries that depend on the context are needed"),
    ):
        if {variant, FULL} <= set(trained["policy"]):
            found.append(_part_is_needed(rows, prior, variant, part))
    on_null = trained[trained["prior"] == _NULL]
    if prior != _NULL and FULL in set(on_null["policy"]):
        if on_null["policy"].nunique() > 1:
            found.append(_null_needs_no_part(rows))
        found += _hierarchy_pays(rows, prior, scales)
    return pd.DataFrame(found, columns=Claim._fields)


def _same_computation(difference: float) -> Claim:
    return Claim(
        "A transformer is a system of token positions that infer together by bounded messages",
        "largest difference of an answer between a transformer and agents that pass messages by its weights",
        difference, difference, difference, f"at most {_EXACT:g}", difference <= _EXACT,
    )  # fmt: skip


def _function_vectors(vectors: FunctionVectors) -> list[Claim]:
    """Each effect is the least over scales, so that it stands for all of them."""
    probes: Any = vectors.probes.set_index(["layer", "scale"])
    scales = [scale for scale in sorted(vectors.probes["scale"].unique()) if (scale, scale) in probes.index]
    resolved = [
        (
            float(probes.loc[(s, s), "value"] - probes.loc[(s - 1, s), "value"]),
            float(np.hypot(probes.loc[(s, s), "se"], probes.loc[(s - 1, s), "se"])),
        )
        for s in scales
        if (s - 1, s) in probes.index
    ]
    asked = vectors.alignment[(vectors.alignment["path"] == "true") & (vectors.alignment["scale"] > 1)]
    own = [
        (float(part["gain"].iloc[0]), float(part["gain_se"].iloc[0]))
        for _, part in asked[asked["layer"] == asked["scale"]].groupby("scale")
    ]
    patched = vectors.patching[(vectors.patching["pairs"] == "part") & (vectors.patching["tokens"] == "all")]
    moved = [
        (float(row["value"] - row["control"]), float(np.hypot(row["se"], row["control_se"])))
        for _, row in patched.iterrows()
        if row["layer"] == row["scale"]
    ]
    claims = []
    for effects, claim, test in (
        (
            resolved,
            "The latent variable is inferred at finer scales from layer to layer",
            "accuracy that a linear probe for scale h gains in layer h, least over scales",
        ),
        (
            own,
            "The function vector says what to ask next",
            "squared cosine of layer h's query with the own node, less that of another prompt's, least over "
            "h > 1",
        ),
        (
            moved,
            "Function vectors carry the inferred context",
            "answers that follow a donor in scale h when its workspaces are put in after layer h, less those "
            "that do anyway, least over scales",
        ),
    ):
        if effects:
            effect, error = min(effects)
            low, high = effect - 2 * error, effect + 2 * error
            least = min(value - 3 * spread for value, spread in effects)
            claims.append(
                Claim(claim, test, effect, low, high, "above 0 by three standard errors", least > 0)
            )
    return claims


def _as_predicted(rows: pd.DataFrame, prior: str) -> list[Claim]:
    found = medians(rows[(rows["prior"] == prior) & (rows["policy"] == FULL) & (rows["depth"] > 0)])
    trained, theory = (found[found["source"] == source] for source in ("transformer", "theory"))
    both: Any = trained.merge(theory, on="depth", suffixes=("", "_theory"))
    if both.empty:
        return []
    ratio, low, high = (both[name] / both["risk_theory"] - 1 for name in ("risk", "low", "high"))
    worst = ratio.idxmax()
    return [
        Claim(
            "Transformers of every depth infer adaptively as well as theory says is possible",
            f"risk over theory's - 1, median over seeds, largest over depths (at {both['depth'][worst]})",
            ratio[worst], low[worst], high[worst], f"at most {_CLOSE:g}", bool(ratio[worst] <= _CLOSE),
        )
    ]  # fmt: skip


def _above_limit(rows: pd.DataFrame) -> list[Claim]:
    trained = rows[rows["source"] == "transformer"]
    limits = rows[rows["source"] == "limit"][["prior", "depth", "risk"]]
    both: Any = trained.merge(limits, on=["prior", "depth"], suffixes=("", "_limit"))
    if both.empty:
        return []
    above: Any = both["risk"] - both["risk_limit"]
    least = (above / both["risk_se"]).idxmin()
    low, high = above[least] - 2 * both["risk_se"][least], above[least] + 2 * both["risk_se"][least]
    return [
        Claim(
            "No transformer is below the limit of theory",
            f"risk less the limit, of the nearest of {len(both)} transformers in standard errors",
            above[least], low, high, "not below 0 by three standard errors",
            bool(above[least] > -3 * both["risk_se"][least]),
        )
    ]  # fmt: skip


def _part_is_needed(rows: pd.DataFrame, prior: str, variant: str, claim: str) -> Claim:
    table = gaps(rows, prior, [variant])
    last: Any = table.iloc[-1]
    told = last["predicted"]
    known = "" if np.isnan(told) else f", theory {told:.3g}"
    grows = bool((np.diff(table["ratio"]) > 0).all())
    return Claim(
        f"{claim}, the more the deeper",
        f"risk without over risk with, at depth {last['depth']}{known}",
        last["ratio"], last["low"], last["high"], "grows with every layer, at last above 1",
        grows and bool(last["low"] > 1),
    )  # fmt: skip


def _null_needs_no_part(rows: pd.DataFrame) -> Claim:
    table: Any = gaps(rows, _NULL)
    ratio, low, high = (table[name] - 1 for name in ("ratio", "low", "high"))
    worst = ratio.abs().idxmax()
    return Claim(
        "Without a hierarchy no part is needed: on the matched Gaussian all transformers are equal",
        f"risk over the full one's - 1, largest over depths and variants ({table['policy'][worst]}, depth "
        f"{table['depth'][worst]})",
        ratio[worst], low[worst], high[worst], f"within {_EQUAL:g}", bool(abs(ratio[worst]) <= _EQUAL),
    )  # fmt: skip


def _hierarchy_pays(rows: pd.DataFrame, prior: str, depth: int) -> list[Claim]:
    found = medians(rows[rows["policy"] == FULL])
    here: Any = found[found["depth"] == depth].set_index(["source", "prior"])
    if not {("transformer", prior), ("transformer", _NULL)} <= set(here.index):
        return []
    tree, null = here.loc[("transformer", prior)], here.loc[("transformer", _NULL)]
    told = ""
    if {("theory", prior), ("theory", _NULL)} <= set(here.index):
        predicted = here.loc[("theory", _NULL), "risk"] / here.loc[("theory", prior), "risk"]
        told = f", theory {predicted:.3g}"
    low, high = null["low"] / tree["high"], null["high"] / tree["low"]
    return [
        Claim(
            "How much depth pays depends on the hierarchy, beyond mean and covariance",
            f"risk on the matched Gaussian over risk on the tree, at depth {depth}{told}",
            null["risk"] / tree["risk"], low, high, "above 1", bool(low > 1),
        )
    ]  # fmt: skip
