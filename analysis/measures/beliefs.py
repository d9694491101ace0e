"""What the tokens of a run came to believe, round by round: pure functions from its frames to a frame.

Each gives `value` with its standard error `se` over prompts, for rows are dependent within a prompt.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from analysis.statistics import by_prompt
from analysis.traces.schema import numbered_columns

_LEAST = 2.0**-126  # probability that single precision holds in full
_BINS = 10


def risk_by_round(prompts: pd.DataFrame) -> pd.DataFrame:
    """Risk |w - w_i|^2 / E|w|^2 by round, mean over tokens.

    Args:
        prompts: the table of a run.

    Returns:
        round, value, se, prompts.
    """
    return by_prompt(prompts, ["round"], "risk")


def risk_by_position(workspaces: pd.DataFrame, atoms: pd.DataFrame) -> pd.DataFrame:
    """Risk |w - w_i|^2 / E|w|^2 by round and position.

    Args:
        workspaces: the table of a run.
        atoms: its prior; a spread around the atoms is not in it, and not in E|w|^2 then.

    Returns:
        round, position, value, se, prompts.
    """
    power = float(atoms["mass"] @ (_columns(atoms, "vector") ** 2).sum(axis=1))
    relative = workspaces.assign(risk=workspaces["error"] / power)
    return by_prompt(relative, ["round", "position"], "risk")


def resolved_by_level(workspaces: pd.DataFrame) -> pd.DataFrame:
    """Share of tokens whose answer lies on the true branch, by round and level of the tree.

    Args:
        workspaces: the table of a run.

    Returns:
        round, level (1 is the coarsest), value, se, prompts.
    """
    return by_prompt(_long(workspaces, "correct"), ["round", "level"], "correct")


def entropy_by_level(workspaces: pd.DataFrame) -> pd.DataFrame:
    """Entropy of the belief over the branches of each level, bits, by round.

    Args:
        workspaces: the table of a run; empty for policies without a belief.

    Returns:
        round, level, value, se, prompts.
    """
    return by_prompt(_long(workspaces, "entropy"), ["round", "level"], "entropy")


def rounds_to_resolve(workspaces: pd.DataFrame) -> pd.DataFrame:
    """The first round from which a token's branch stays the true one, by level; L + 1 if it never does.

    Args:
        workspaces: the table of a run, with all its rounds.

    Returns:
        level, value (rounds), se, prompts, never (share of tokens that do not resolve it).
    """
    long = _long(workspaces, "correct")
    last = int(workspaces["round"].max()) if len(workspaces) else 0
    wrong = long["round"].where(~long["correct"].astype(bool), -1)
    after = wrong.groupby([long["level"], long["prompt"], long["position"]]).max() + 1
    times = after.rename("time").reset_index()
    found = by_prompt(times, ["level"], "time")
    never = by_prompt(times.assign(never=(times["time"] > last).astype(float)), ["level"], "never")
    return found.assign(never=never["value"])


def posterior_error(workspaces: pd.DataFrame, truths: pd.DataFrame) -> pd.DataFrame:
    """Kullback-Leibler divergence of a token's belief from the exact posterior, bits, by round.

    D = sum_a p_a log2(p_a / q_a), with p the posterior over atoms given all examples of the prompt, and q the
    belief of a token. A probability of q below 2^-126 counts as that.

    Args:
        workspaces: the table of a run, with beliefs.
        truths: its table of the truth.

    Returns:
        round, value (bits), se, prompts; no rows where there are no beliefs.
    """
    exact, belief = _columns(truths, "exact"), _columns(workspaces, "belief")
    if not exact.shape[1] or not belief.shape[1]:
        return pd.DataFrame({"round": [], "value": [], "se": [], "prompts": []})
    place = pd.Index(truths["prompt"]).get_indexer(pd.Index(workspaces["prompt"]))
    p, q = exact[place], np.maximum(belief, _LEAST)
    ratio = np.log2(np.maximum(p, _LEAST)) - np.log2(q)
    known = ~np.isnan(belief).any(axis=1)
    bits = np.where(known, np.maximum((p * ratio).sum(axis=1), 0.0), np.nan)
    return by_prompt(workspaces[["round", "prompt"]].assign(bits=bits), ["round"], "bits")


def disagreement(workspaces: pd.DataFrame) -> pd.DataFrame:
    """Mean squared distance between the estimates of two tokens of a prompt, by round.

    mean over i != j of |w_i - w_j|^2 = 2 / (N - 1) sum_i |w_i - mean|^2.

    Args:
        workspaces: the table of a run.

    Returns:
        round, value, se, prompts; no rows for a single token.
    """
    names = numbered_columns(workspaces, "estimate")
    tokens = workspaces.groupby(["round", "prompt"])[names]
    spread = 2.0 * tokens.var(ddof=1).sum(axis=1, min_count=1)
    return by_prompt(spread.rename("spread").reset_index(), ["round"], "spread")


def calibration(workspaces: pd.DataFrame) -> pd.DataFrame:
    """What beliefs claim against what they make: tenths of the tokens by E|w - w_i|^2 under their belief.

    Args:
        workspaces: the table of a run, with what beliefs claim; round 0 is left out.

    Returns:
        bin, claimed (mean), value (mean of |w - w_i|^2), se, prompts.
    """
    known = workspaces[(workspaces["round"] > 0) & workspaces["claimed"].notna()]
    if not len(known):
        return pd.DataFrame({"bin": [], "claimed": [], "value": [], "se": [], "prompts": []})
    order = known["claimed"].rank(method="first")
    known = known.assign(bin=np.ceil(_BINS * order / len(known)).astype(int))
    found = by_prompt(known, ["bin"], "error")
    return found.assign(claimed=known.groupby("bin")["claimed"].mean().to_numpy(float))


def calibration_slope(workspaces: pd.DataFrame) -> pd.DataFrame:
    """Error that is made for each unit of error that is claimed: 1 if beliefs know what they do not know.

    The ratio of the means over tokens, by round; its standard error from leaving out prompts, one by one.

    Args:
        workspaces: the table of a run, with what beliefs claim.

    Returns:
        round, value, se, prompts.

    Source: B. Efron, The Jackknife (1982), doi:10.1137/1.9781611970319.
    """
    known = workspaces[workspaces["claimed"].notna()].astype({"claimed": float})
    sums = known.groupby(["round", "prompt"])[["error", "claimed"]].sum()
    rows = []
    for index, part in sums.groupby(level="round"):
        total, count = part.sum(), len(part)
        if not total["claimed"]:
            continue
        slope = float(total["error"] / total["claimed"])
        left = (total["error"] - part["error"]) / (total["claimed"] - part["claimed"])
        error = float(np.sqrt((count - 1) * left.var(ddof=0))) if count > 1 else np.nan
        rows.append({"round": index, "value": slope, "se": error, "prompts": count})
    return pd.DataFrame(rows, columns=["round", "value", "se", "prompts"])


def _columns(frame: pd.DataFrame, group: str) -> Float[np.ndarray, "rows columns"]:
    """The numbered columns of a group."""
    return frame[numbered_columns(frame, group)].to_numpy(float)


def _long(frame: pd.DataFrame, group: str) -> pd.DataFrame:
    """A row for each level: round, position, prompt, level, and the group's value."""
    names = numbered_columns(frame, group)
    long = frame.melt(["round", "position", "prompt"], names, "level", group)
    return long.assign(level=long["level"].str.rpartition("_")[2].astype("int64"))
