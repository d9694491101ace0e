"""What a comparison showed, in one sentence whose every number is measured."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics import z_scores

_SIZEABLE = 0.01  # a risk below is made of rare errors


def sentence(rows: pd.DataFrame, max_difference: float | None, null_gap: tuple[float, float] | None) -> str:
    """The sentence that a comparison ends with; it says so where a claim does not hold.

    Args:
        rows: columns source, prior, policy, depth, risk, risk_se.
        max_difference: largest difference between transformer and agents that run its weights.
        null_gap: on the null, adaptive minus static risk at the deepest round, paired by prompt, and its
            standard error.
    """
    prior = rows["prior"].iloc[0]
    here = rows[rows["prior"] == prior]
    agents = here[here["source"] == "agents"]
    depth = int(agents["depth"].max())
    parts = [_agents(agents, depth)]
    worst = largest_z(rows)
    if worst is not None:
        parts.append(
            f"theory and agents differ by at most {worst[0]:.1f} standard errors in {worst[1]} pairs"
        )
    trained = here[here["source"] == "transformer"]
    if not trained.empty:
        parts.append(_transformers(trained, agents, min(3, int(trained["depth"].max()))))
    if max_difference is not None:
        parts.append(f"agents that run its weights answer as it does to {max_difference:.0e}")
    if null_gap is not None:
        gap, error = null_gap
        verdict = "gains nothing" if abs(gap) <= 3 * error + 1e-12 else "differs from static"
        parts.append(f"on the matched Gaussian adaptivity {verdict} ({gap:+.4f} ± {error:.4f})")
    return "; ".join(parts) + "."


def locality_sentence(depths: pd.DataFrame, contexts: pd.DataFrame) -> str:
    """The sentence that a comparison of graphs ends with; it says so where a limit does not hold.

    Args:
        depths: source, family, mixing_time, depth, risk, risk_se, limit; agents and theory.
        contexts: source, policy, context, risk, risk_se on the causal graph; may be empty.
    """
    agents = depths[depths["source"] == "agents"]
    found = sorted(agents["depth"].unique())
    middle = found[len(found) // 2]
    at = agents[agents["depth"] == middle].sort_values("mixing_time")
    listed = ", ".join(f"{row['family'].replace('_', ' ')} {_number(row)}" for _, row in at.iterrows())
    parts = [f"After {middle} rounds gossip is at: {listed}"]
    both = agents.merge(
        depths[depths["source"] == "theory"], on=["family", "depth"], suffixes=("", "_theory")
    )
    sizeable = both[both["risk"] > _SIZEABLE]
    if len(sizeable):
        off = sizeable["risk"] / sizeable["risk_theory"] - 1
        parts.append(
            f"agents are {100 * off.median():+.0f} % from theory in "
            f"the median and {100 * off.min():+.0f} to {100 * off.max():+.0f} % at risks above {_SIZEABLE}"
        )
    below = agents[agents["risk"] + 3 * agents["risk_se"] < agents["limit"]]
    verdict = "no risk is below" if below.empty else f"{len(below)} of {len(agents)} risks are below"
    parts.append(f"{verdict} the Bayes risk of its light cone")
    last = contexts[contexts["context"] == contexts["context"].max()] if len(contexts) else contexts
    for source, name in (("agents", "agents"), ("transformer", "the trained transformer")):
        here = last[last["source"] == source] if len(last) else last
        if len(here):
            values = ", ".join(f"{row['policy']} {_number(row)}" for _, row in here.iterrows())
            parts.append(f"at the end of {int(here['context'].iloc[0])} causal tokens {name}: {values}")
    return "; ".join(parts) + "."


def causal_sentence(contexts: pd.DataFrame, inside: pd.DataFrame) -> str:
    """Whether the agents explain the causal transformer; it says where they do not.

    Risks are alike at a context if they are within three standard errors or a quarter (those of rare errors,
    below a hundredth, within a factor of three or a thousandth). The agents explain it if it reaches nothing
    at any context that they do not reach, and while levels are asked in turn nine tenths of its queries lie
    on the level that they ask; where it is worse than they are, it is said at which contexts.

    Args:
        contexts: source, policy, noise, context, risk, risk_se, of agents and of the transformer.
        inside: source, noise, context, measure, layer, scale, value.
    """
    parts = []
    agents = contexts[(contexts["source"] == "agents") & (contexts["policy"] == "adaptive")]
    trained = contexts[contexts["source"] == "transformer"]
    both = trained.merge(agents, on=["noise", "context"], suffixes=("", "_agents"))
    levels = inside[inside["measure"] == "level"]
    for noise, rows in both.groupby("noise"):
        error = np.hypot(rows["risk_se"], rows["risk_se_agents"])
        apart = (rows["risk"] - rows["risk_agents"]).abs()
        larger, smaller = rows[["risk", "risk_agents"]].max(axis=1), rows[["risk", "risk_agents"]].min(axis=1)
        alike = (apart <= 3 * error) | (larger <= 1.25 * smaller)
        alike |= (larger < _SIZEABLE) & ((larger <= 3 * smaller) | (larger < 0.1 * _SIZEABLE))
        listed = ", ".join(
            f"{row['risk']:.4f} ({row['risk_agents']:.4f}) at {row['context']:g}"
            for _, row in rows.iterrows()
        )
        here = levels[levels["noise"] == noise]
        means = here.groupby(["source", "layer", "scale"])["value"].mean().reset_index()
        asked, said = (means[means["source"] == source] for source in ("agents", "transformer"))
        in_turn = asked[asked["value"] > 0.99]  # the level that agents ask in a layer
        share = list(said.merge(in_turn, on=["layer", "scale"])["value_x"])
        follows = bool(share) and min(share) >= 0.9
        beyond = ~alike & (rows["risk"] < rows["risk_agents"])
        explained = follows and not bool(beyond.any())
        verdict = "explain the transformer" if explained else "do not wholly explain it"
        behind = ", ".join(f"{place:g}" for place in rows["context"][~alike & ~beyond])
        verdict += f" and are better at {behind} tokens" if behind else ""
        queries = ", ".join(f"{100 * part:.0f} %" for part in share) or "none"
        parts.append(
            f"at τ = {noise:g} the agents {verdict}: it is at {listed} tokens heard (agents in brackets), "
            f"its queries lie on the level that they ask in {queries} of the first {len(share)} layers"
        )
    return "After all rounds, " + "; ".join(parts) + "."


def vectors_sentence(probes: pd.DataFrame, alignment: pd.DataFrame, patching: pd.DataFrame) -> str:
    """The sentence that a study of function vectors ends with; it says so where a claim does not hold.

    Args:
        probes: layer, scale, value, se, control of linear probes.
        alignment: layer, scale, value, se, control, gain, gain_se, path of queries.
        patching: layer, scale, pairs, tokens, value, se, control of answers that follow a donor.
    """
    read = probes.pivot(index="layer", columns="scale", values="value")
    half = (1 + probes.groupby("scale")["chance"].first()) / 2
    first = {scale: _first(read[scale], half[scale]) for scale in read.columns}
    layers = ", ".join(
        f"{scale} after layer {'none' if layer is None else layer}" for scale, layer in first.items()
    )
    known = [layer for layer in first.values() if layer is not None]
    ordered = known == sorted(known) and len(known) == len(first)
    order = "coarse first, then finer" if ordered else "not coarse first"
    parts = [f"A linear probe reads scale {layers}: {order}"]
    own = alignment[(alignment["path"] == "true") & (alignment["scale"] > 1)]
    peak = own.loc[own.groupby("scale")["value"].idxmax()] if len(own) else own
    asked = ", ".join(
        f"scale {row['scale']} at layer {row['layer']} with {row['value']:.2f} (another prompt's query "
        f"{row['control']:.2f})"
        for _, row in peak.iterrows()
    )
    if asked:
        adaptive = bool((peak["gain"] > 3 * peak["gain_se"]).all())
        verdict = "follow" if adaptive else "do not follow"
        parts.append(
            f"queries {verdict} what was resolved: squared cosine with the node of the own path, {asked}"
        )
    here = patching[(patching["pairs"] == "part") & (patching["tokens"] == "all")]
    turned = here.pivot(index="layer", columns="scale", values="value")
    moves = [
        f"{float(turned[scale][layer]):.2f} of the answers follow the donor in scale {scale}"
        for scale, layer in first.items()
        if layer is not None
    ]
    if moves:
        parts.append("patched after the layer that resolves it, " + ", ".join(moves))
    return "; ".join(parts) + "."


def _first(accuracy: "pd.Series[float]", level: float) -> int | None:
    """The first layer whose probe is above half of the way from chance to certainty."""
    above = accuracy[accuracy > level]
    return int(above.index[0]) if len(above) else None


def largest_z(rows: pd.DataFrame) -> tuple[float, int] | None:
    """Largest |z| between theory and agents, over how many risks; rounds after 0, all policies and priors.

    The pairs of one prior share their prompts, so they are far from independent.
    """
    keys = ["prior", "policy", "depth"]
    heard = rows[rows["depth"] > 0]
    both = heard[heard["source"] == "theory"].merge(heard[heard["source"] == "agents"], on=keys)
    if both.empty:
        return None
    left, left_error, right, right_error = (
        both[name].to_numpy() for name in ("risk_x", "risk_se_x", "risk_y", "risk_se_y")
    )
    scores = z_scores(left, left_error, right, right_error)
    return float(np.abs(scores).max()), len(scores)


def _agents(agents: pd.DataFrame, depth: int) -> str:
    last = agents[agents["depth"] == depth].set_index("policy")
    text = []
    if "adaptive" in last.index:
        text.append(f"After {depth} rounds adaptive agents are at {_number(last.loc['adaptive'])} of E|w|²")
    fixed = last[[name.startswith("static") and name.endswith("no cv") for name in last.index]]
    if not fixed.empty:
        best = str(fixed["risk"].idxmin())
        text.append(f"the best fixed order ({best.removesuffix(', no cv')}) at {_number(fixed.loc[best])}")
    return ", ".join(text) or f"After {depth} rounds the agents were measured"


def _transformers(trained: pd.DataFrame, agents: pd.DataFrame, depth: int) -> str:
    at = trained[trained["depth"] == depth].set_index("policy")
    peer = agents[(agents["depth"] == depth) & (agents["policy"] == "adaptive")]["risk"]
    text = []
    if "feedforward" in at.index:
        words = f"at depth {depth} the trained transformer is at {_number(at.loc['feedforward'])}"
        if not peer.empty:
            words += f", {at.loc['feedforward', 'risk'] / peer.iloc[0]:.2f} times the adaptive agents"
        text.append(words)
    if "linear" in at.index:
        text.append(f"without feedforward at {_number(at.loc['linear'])}")
    return ", ".join(text)


def _number(row: Any) -> str:
    return f"{row['risk']:.4f} ± {row['risk_se']:.4f}"


def claims_sentence(claims: pd.DataFrame) -> str:
    """How many claims hold, and by how much those fail that do not.

    Example:
        >>> held = {"claim": "Depth pays", "effect": 9.0, "low": 8.0, "high": 10.0, "needed": "above 1"}
        >>> claims_sentence(pd.DataFrame([{**held, "holds": True}]))
        '1 of 1 claims holds.'
        >>> claims_sentence(pd.DataFrame([{**held, "effect": 0.5, "low": 0.4, "high": 0.6, "holds": False}]))
        '0 of 1 claims hold; not: Depth pays (0.5, from 0.4 to 0.6, needed: above 1).'
    """
    held = int(claims["holds"].sum())
    failed = [
        f"{row['claim']} ({row['effect']:.3g}, from {row['low']:.3g} to {row['high']:.3g}, "
        f"needed: {row['needed']})"
        for _, row in claims[~claims["holds"]].iterrows()
    ]
    text = f"{held} of {len(claims)} claims {'holds' if held == 1 else 'hold'}"
    return text + (f"; not: {'; '.join(failed)}." if failed else ".")
