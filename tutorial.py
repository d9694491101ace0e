# %% [markdown]
# # How much depth does structure need?
#
# Ten minutes from an experiment to an insight. Every cell runs as it is: in Jupyter, in VS Code, or from
# top to bottom with `make tutorial`, which writes this page. The formulas behind it are in `agents/README.md`
# and `analysis/README.md`.
#
# ## 1. The task
#
# Each token of a prompt sees one example, y = w·x + σε, and all of them want w. The vector w is a path from
# the root of a tree to one of its leaves: coarse decisions first, fine ones below. A token can say little: in
# each round one number, about one direction that it chooses. How many rounds does it take?

# %%
import tempfile

import pandas as pd

from analysis import measures, open_run, plots
from runner import Experiment, predict, simulate, sweep
from runner.studies.intervene import intervene

LEVELS = 3  # of the tree: 8 leaves

experiment = Experiment().with_values(
    {
        "prior.levels": LEVELS,
        "prior.dim": 2**LEVELS - 1,  # a direction for each choice
        "task.tokens": 64,
        "task.prompts": 500,
        "run.rounds": 2**LEVELS - 1,
        "run.trace": "full",
    }
)
experiment

# %% [markdown]
# ## 2. Agents that ask what they do not know yet
#
# `adaptive` agents hold a belief over the leaves. Each round they ask about the direction that their belief
# is most unsure of, hear the mean of what the others say about it, and update. The bar shows rounds as they
# end.

# %%
folder = tempfile.mkdtemp()
adaptive = simulate(experiment, out=folder, name="adaptive")
adaptive

# %% [markdown]
# Three rounds, one for each level of the tree, and the risk is nearly nothing. Agents with `static` queries
# go through all seven directions of the tree in a fixed order, as a linear layer would:

# %%
static = simulate(experiment.with_values({"policy.kind": "static"}), out=folder, name="static")
curves = pd.DataFrame({"adaptive": adaptive.risk, "static": static.risk}).rename_axis("round")
curves.round(4)

# %% [markdown]
# Nothing here is a matter of luck: theory predicts both curves without playing a single prompt.

# %%
theory = {kind: predict(experiment.with_values({"policy.kind": kind})) for kind in ("adaptive", "static")}
pd.DataFrame({kind: rows.set_index("round")["risk"] for kind, rows in theory.items()}).round(4)

# %% [markdown]
# ## 3. Look inside
#
# Every message and every belief of the run is in a table. In round 1 all tokens ask for the same direction,
# that of the coarsest decision. In round 2 they ask for one of two, in round 3 for one of four: the
# question depends on the answers, and that is what static queries lack.

# %%
run = open_run(adaptive.folder)
asked = measures.messages.spectrum(run.messages)
asked[asked["round"] <= 3].pivot(index="round", columns="code", values="share").round(3).fillna(0.0)

# %% [markdown]
# The entropy of the beliefs at each level, in bits, falls to zero one level after the other: coarse to
# fine.

# %%
entropy = measures.beliefs.entropy_by_level(run.workspaces)
entropy.pivot(index="round", columns="level", values="value").round(3).abs()

# %%
resolved = measures.beliefs.resolved_by_level(run.workspaces)
plots.run.levels(resolved, entropy, f"adaptive agents, a tree of {LEVELS} levels, N = 64")

# %% [markdown]
# ## 4. Change something, and see who is moved
#
# Let eight tokens lie: as loudly as the channel lets them, with the sign that their message does not have.
# The same prompts and noise are played again, so that the differences are the lies' alone.

# %%
small = experiment.with_values({"task.prompts": 200, "run.rounds": LEVELS})
lies = intervene(small, tokens=range(8), kind="adversarial")
honest = lies[lies["position"] >= 8]
honest.groupby("round")[["risk", "value", "moved"]].mean().round(4)

# %% [markdown]
# A mean without its largest and smallest fifth is hard to lie to:

# %%
defended = intervene(small, tokens=range(8), kind="adversarial", trim=0.2)
defended[defended["position"] >= 8].groupby("round")[["risk", "value", "moved"]].mean().round(4)

# %% [markdown]
# ## 5. One key, many values
#
# A sweep plays an experiment at many values and keeps one tidy table. How does the risk after three rounds
# depend on the noise on the channel?

# %%
noises = sweep(
    experiment.with_values({"run.rounds": LEVELS, "run.trace": "none"}),
    grid={"channel.noise": [0.0, 0.5, 1.0, 2.0]},
    out=folder,
    engine="local",
)
noises.last[["channel.noise", "risk", "risk_se"]].round(4)

# %% [markdown]
# ## 6. Your turn
#
# Set `LEVELS` to 4 and run all cells again. Before you do, guess: how many rounds will adaptive agents need,
# and how many static ones? (`tokenfield sweep depth` plays one to five levels, with trained transformers
# beside; `FINDINGS.md` has the answer.)
