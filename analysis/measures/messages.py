"""What the messages of a run carry, round by round: pure functions from its frames to a frame."""

import numpy as np
import pandas as pd

from analysis.statistics import by_prompt
from analysis.traces.schema import numbered_columns


def spectrum(messages: pd.DataFrame) -> pd.DataFrame:
    """Mean square of what is said, by round and code: the power with which each direction is asked about.

    Args:
        messages: the table of a run.

    Returns:
        round, code, value, se, prompts, share (of the round's scalars that ask for this code).
    """
    found = by_prompt(messages.assign(square=messages["value"] ** 2), ["round", "code"], "square")
    counts = messages.groupby(["round", "code"]).size()
    share = counts / counts.groupby(level="round").transform("sum")
    return found.assign(share=share.to_numpy(float))


def saturation(messages: pd.DataFrame) -> pd.DataFrame:
    """Share of scalars that were clipped, by round and code.

    Args:
        messages: the table of a run.

    Returns:
        round, code, value, se, prompts.
    """
    return by_prompt(messages, ["round", "code"], "clipped")


def information(workspaces: pd.DataFrame, rounds: pd.DataFrame, tokens: int, prompts: int) -> pd.DataFrame:
    """Bits that a token's belief gained since the start, against the bits that it was sent since then.

    Gained is the fall of the entropy of the belief over the finest branches. Sent are the bits that a token
    put on the wire, which is the capacity of its channel where all of its scalars are sent.

    Args:
        workspaces: the table of a run, with entropies and round 0.
        rounds: its table of rounds.
        tokens: N.
        prompts: B of the run.

    Returns:
        round, value (bits gained), se, prompts, sent (bits a token), per_bit (bits gained for each bit sent).
    """
    names = numbered_columns(workspaces, "entropy")
    if not names:
        return pd.DataFrame({"round": [], "value": [], "se": [], "prompts": [], "sent": [], "per_bit": []})
    keys = ["position", "prompt"]
    start = workspaces.loc[workspaces["round"] == 0, [*keys, names[-1]]].set_index(keys)[names[-1]]
    before = start.reindex(pd.MultiIndex.from_frame(workspaces[keys])).to_numpy(float)
    gained = workspaces[["round", "prompt"]].assign(gained=before - workspaces[names[-1]].to_numpy(float))
    found = by_prompt(gained, ["round"], "gained")
    heard = rounds.set_index("round")["bits"].cumsum() / (tokens * prompts)
    sent = heard.reindex(found["round"]).to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return found.assign(sent=sent, per_bit=np.where(sent > 0, found["value"] / sent, np.nan))
