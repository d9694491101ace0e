"""What a stored run shows: its measures, what theory says of it, and its figures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.measures import beliefs, messages
from analysis.plots import run as plots
from analysis.traces.reader import Run
from runner.config.experiment import Experiment
from runner.errors import TokenfieldError
from runner.prediction import predict

_SAMPLES = 5000  # of theory
_MOST_DRAWN = 400  # tokens of a graph that is drawn


@dataclass(frozen=True, eq=False)
class Overview:
    """The measures of a run that its trace allows, each a frame.

    Attributes:
        run: the run.
        risk: source (theory, agents), round, risk, risk_se.
        tables: the other measures, by name; those without rows are left out.
        caption: what was run, in one line.
    """

    run: Run
    risk: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    caption: str


def overview(run: Run, theory: bool = True) -> Overview:
    """Measure a run.

    Args:
        run: stored, with any trace but `none`.
        theory: predict its risk too, where there is a theory of it.

    Raises:
        FileNotFoundError: if it stored no table of rounds: it was stopped, or not traced.

    Example:
        >>> import tempfile
        >>> from analysis import open_run
        >>> from runner import simulate
        >>> small = Experiment().with_values({"task.prompts": 20, "task.tokens": 8, "run.trace": "full"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = overview(open_run(simulate(small, out=folder).folder), theory=False)
        >>> sorted(found.tables)[:3]
        ['belief', 'calibration', 'calibration slope']
    """
    risk = run.rounds.loc[:, ["source", "round", "risk", "risk_se"]]
    if theory:
        risk = pd.concat([_theory(run), risk], ignore_index=True)
    tables: dict[str, pd.DataFrame] = {}
    if run.experiment.run.trace in ("sampled", "full"):
        tables = _measured(run)
    return Overview(run, risk, {name: table for name, table in tables.items() if len(table)}, caption_of(run))


def caption_of(run: Run) -> str:
    """What was run, in one line."""
    given, channel = run.experiment, run.experiment.channel
    graph = "a graph that was handed in" if run.manifest.get("nodes") else given.graph.kind.replace("_", " ")
    return (
        f"{given.policy.kind} on {graph}, "
        f"{given.prior.kind.replace('_', ' ')} prior, "
        f"N = {given.task.tokens}, L = {given.run.rounds}, K = {channel.channels}, {channel.bits} bits, "
        f"τ = {channel.noise:g}, {given.task.prompts:,} prompts"
    )


def figures(found: Overview) -> dict[str, Figure]:
    """The figures that a run's measures allow, by name."""
    tables, caption, drawn = found.tables, found.caption, {}
    drawn["risk"] = plots.risk_by_round(found.risk, caption)
    if set(found.risk["source"]) == {"theory", "agents"} and found.risk["risk_se"].notna().all():
        drawn["residuals"] = plots.residuals(found.risk, caption)
    if "resolved by level" in tables:
        entropy = tables.get("entropy by level", tables["resolved by level"].iloc[:0])
        drawn["levels"] = plots.levels(tables["resolved by level"], entropy, caption)
    if "spectrum" in tables:
        drawn["messages"] = plots.message_map(tables["spectrum"], caption)
    if "information" in tables:
        drawn["information"] = plots.information(tables["information"], caption)
    if "calibration" in tables:
        last = tables["calibration slope"].iloc[-1]
        drawn["calibration"] = plots.calibration(tables["calibration"], last["value"], last["se"], caption)
    if _is_drawn(found):
        drawn["beliefs-on-graph"] = plots.beliefs_on_graph(found.run.graph, *_first_prompt(found))
    return drawn


def animation(found: Overview) -> list[Figure]:
    """The graph after each round, tokens coloured by belief, as pictures; none if there are no beliefs."""
    return plots.beliefs_by_round(found.run.graph, *_first_prompt(found)) if _is_drawn(found) else []


def _is_drawn(found: Overview) -> bool:
    """Whether the belief of every token was kept, and they are few enough to be seen."""
    belief, tokens = found.tables.get("belief"), found.run.experiment.task.tokens
    return belief is not None and belief["position"].nunique() == tokens <= _MOST_DRAWN


def _first_prompt(found: Overview) -> tuple[pd.DataFrame, int, str]:
    """Beliefs, the prompt that is drawn, and the caption."""
    prompt = int(found.tables["belief"]["prompt"].min())
    return found.tables["belief"], prompt, f"{found.caption}; prompt {prompt}"


def _theory(run: Run) -> pd.DataFrame:
    """What theory predicts; no rows where there is none, or objects were handed in that are not stored."""
    nothing = pd.DataFrame({"source": [], "round": [], "risk": [], "risk_se": []})
    if run.needs_objects:
        return nothing
    try:
        experiment = Experiment.model_validate(run.manifest["experiment"])
        return predict(experiment, _SAMPLES) if experiment.task.tokens <= _MOST_DRAWN else nothing
    except TokenfieldError:  # of a version that knew other keys
        return nothing


def _measured(run: Run) -> dict[str, pd.DataFrame]:
    """The measures of messages and workspaces, as far as the columns were kept."""
    given = run.experiment
    measures: dict[str, Callable[[], pd.DataFrame]] = {
        "resolved by level": lambda: beliefs.resolved_by_level(run.workspaces),
        "entropy by level": lambda: beliefs.entropy_by_level(run.workspaces),
        "rounds to resolve": lambda: beliefs.rounds_to_resolve(_whole(run)),
        "posterior error": lambda: beliefs.posterior_error(run.workspaces, run.truths),
        "disagreement": lambda: beliefs.disagreement(run.workspaces),
        "calibration": lambda: beliefs.calibration(run.workspaces),
        "calibration slope": lambda: beliefs.calibration_slope(run.workspaces),
        "spectrum": lambda: messages.spectrum(run.messages),
        "saturation": lambda: messages.saturation(run.messages),
        "information": lambda: messages.information(
            run.workspaces, run.rounds, given.task.tokens, len(range(*run.manifest["prompts"]))
        ),
        "belief": lambda: belief_in_the_truth(run),
    }
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        try:
            found[name] = measure()
        except (KeyError, ValueError, FileNotFoundError):  # a column or table that this trace does not keep
            continue
    return found


def _whole(run: Run) -> pd.DataFrame:
    """The workspaces, if all rounds are there.

    Raises:
        ValueError: if some were not kept.
    """
    if set(run.workspaces["round"]) != set(range(run.experiment.run.rounds + 1)):
        raise ValueError("some rounds were not kept")
    return run.workspaces


def belief_in_the_truth(run: Run) -> pd.DataFrame:
    """round, position, prompt, true: the probability that a token gives to the true atom."""
    frame, atoms = run.workspaces, run.truths.set_index("prompt")["atom"]
    held = frame[[f"belief_{atom}" for atom in range(run.manifest["sizes"]["beliefs"])]].to_numpy(float)
    if not held.shape[1]:
        return frame.iloc[:0]
    true = held[range(len(frame)), atoms.loc[frame["prompt"]].to_numpy()]
    return frame[["round", "position", "prompt"]].assign(true=true).dropna()
