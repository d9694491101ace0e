"""One prompt of a run, round by round: who asked what, what was said and heard, what is believed."""

import numpy as np
import pandas as pd

from analysis.report.tables import Display
from analysis.traces.schema import numbered_columns

_BARS = " ▁▂▃▄▅▆▇█"
_SEEN = 0.02  # probability from which a bar is drawn
MOST_SHOWN = 16  # tokens in a table for a terminal


def steps(
    messages: pd.DataFrame, workspaces: pd.DataFrame, nodes: pd.DataFrame, prompt: int
) -> dict[int, pd.DataFrame]:
    """A frame for each round, a row for each token.

    Args:
        messages: of the run; those of this prompt are taken.
        workspaces: likewise.
        nodes: position and name.
        prompt: which.

    Returns:
        round -> position, name, asked (codes), said (values), clipped, heard (N_eff), error, claimed, right
        (levels of the true branch), entropy (bits, finest level), and belief_0 to _A-1 where there are such.

    Raises:
        ValueError: if the trace holds nothing of the prompt.
    """
    mine = workspaces[workspaces["prompt"] == prompt]
    if not len(mine):
        raise ValueError(f"the trace holds no workspaces of prompt {prompt}")
    said = messages[messages["prompt"] == prompt].groupby(["round", "sender"])
    texts = pd.DataFrame(
        {
            "asked": said["code"].agg(lambda codes: " ".join(str(code) for code in codes)),
            "said": said["value"].agg(lambda values: " ".join(f"{value:+.2f}" for value in values)),
            "clipped": said["clipped"].any(),
        }
    )
    names = nodes.set_index("position")["name"]
    levels = numbered_columns(mine, "correct")
    entropies = numbered_columns(mine, "entropy")
    beliefs = numbered_columns(mine, "belief")
    found = {}
    for index, part in mine.sort_values(["round", "position"]).groupby("round"):
        keys = pd.MultiIndex.from_product([[index], part["position"]])
        spoken = texts.reindex(keys).reset_index(drop=True)
        rows = part.reset_index(drop=True)
        table = pd.DataFrame({"position": rows["position"], "name": names.loc[rows["position"]].to_numpy()})
        table = table.join(spoken)
        table["heard"], table["error"] = rows["effective"], rows["error"]
        table["claimed"] = rows.get("claimed", np.nan)
        table["right"] = rows[levels].sum(axis=1)
        table["entropy"] = rows[entropies[-1]] if entropies else np.nan
        found[int(str(index))] = table.join(rows[beliefs])
    return found


def display(index: int, table: pd.DataFrame, levels: int) -> Display:
    """A round as a table for a terminal, of its first tokens.

    Args:
        index: the round.
        table: as `steps` gives it.
        levels: D.
    """
    shown = table.head(MOST_SHOWN)
    beliefs = numbered_columns(shown, "belief")
    cells: dict[str, list[str]] = {"token": shown["name"].astype(str).tolist()}
    if index:
        cells["asked"] = shown["asked"].fillna("-").astype(str).tolist()
        cells["said"] = [
            f"{said}{' clipped' if clipped else ''}" if isinstance(said, str) else "-"
            for said, clipped in zip(shown["said"], shown["clipped"], strict=True)
        ]
        cells["heard"] = [f"{heard:.1f}" for heard in shown["heard"]]
    if beliefs:
        cells["belief"] = [bars(row) for row in shown[beliefs].to_numpy(float)]
    cells["bits unknown"] = [
        "-" if np.isnan(bits) else f"{bits:.2f}" for bits in shown["entropy"].astype(float)
    ]
    cells["levels right"] = [f"{right} of {levels}" for right in shown["right"]]
    cells["|w - w_i|²"] = [f"{error:.4f}" for error in shown["error"]]
    left = len(table) - len(shown)
    title = f"round {index}" + (f", the first {len(shown)} of {len(table):,} tokens" if left else "")
    return Display(title, pd.DataFrame(cells))


def bars(belief: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> str:
    """Probabilities as bars, one letter for each atom; nothing below 2 %, a question mark without a belief.

    Example:
        >>> bars(np.array([0.0, 0.5, 1.0]))
        ' ▄█'
    """
    top = len(_BARS) - 1
    heights = [0 if part <= _SEEN else int(np.ceil(part * top - 1e-9)) for part in np.nan_to_num(belief)]
    return "".join(
        "?" if np.isnan(part) else _BARS[height] for part, height in zip(belief, heights, strict=True)
    )
