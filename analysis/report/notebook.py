"""How runs, simulations and experiments look in a notebook: a table, and a small figure of the risk."""

import base64
import io
from collections.abc import Collection, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.traces.reader import Run

_MOST_ROUNDS = 12  # rows of the table of the risk; of more, some


def of_run(run: "Run") -> str:
    """A stored run: what was run, which tables there are, and the risk by round.

    Example:
        >>> from analysis import open_run
        >>> of_run.__name__
        'of_run'
    """
    given = run.experiment
    facts = {
        "status": run.manifest["status"],
        "policy": given.policy.kind,
        "prior": given.prior.kind,
        "graph": "handed in" if run.manifest.get("nodes") else given.graph.kind,
        "tokens, rounds": f"{given.task.tokens:,}, {given.run.rounds}",
        "prompts": f"{len(range(*run.manifest['prompts'])):,}",
        "trace": given.run.trace,
    }
    try:
        rows = run.rounds[["round", "source", "risk", "risk_se"]]
    except FileNotFoundError:  # it was stopped, or not traced
        return _card(run.folder.name, _pairs(facts))
    return of_simulation(run.folder.name, facts, rows)


def of_simulation(title: str, facts: Mapping[str, Any], rows: pd.DataFrame) -> str:
    """Facts, the risk by round as a table, and as a figure.

    Args:
        title: above them.
        facts: names and values.
        rows: source (agents), round, risk, risk_se.

    Example:
        >>> rows = pd.DataFrame({"round": [0, 1], "source": "agents", "risk": [1.0, 0.5], "risk_se": 0.1})
        >>> text = of_simulation("<b>", {"tokens": "8"}, rows)
        >>> "<b>" in text, "&lt;b&gt;" in text, "0.5000 ± 0.1000" in text, "data:image/png" in text
        (False, True, True, True)
    """
    from analysis.plots.run import risk_by_round

    every = -(-len(rows) // _MOST_ROUNDS)
    kept = rows[(rows["round"] % every == 0) | (rows["round"] == rows["round"].max())]
    risks = {
        f"after round {row['round']}": f"{row['risk']:.4f} ± {row['risk_se']:.4f}"
        for row in kept.to_dict("records")
    }
    source = base64.b64encode(_png(risk_by_round(rows, ""), 80)).decode()
    figure = f'<img alt="risk by round" width="360" src="data:image/png;base64,{source}">'
    return _card(title, _pairs(facts), _pairs(risks, "risk / E|w|²"), figure)


def of_figure(figure: "Figure") -> bytes:
    """A figure as PNG."""
    return _png(figure, 96)


def of_experiment(tables: Mapping[str, Mapping[str, Any]], changed: Collection[str]) -> str:
    """The keys of an experiment, table by table; those that are not the default stand out.

    Args:
        tables: values by table and key.
        changed: `table.key` of those that are not the default.

    Example:
        >>> text = of_experiment({"task": {"tokens": 8, "dim": 4}}, {"task.tokens"})
        >>> "<strong>tokens = 8</strong>" in text, "<strong>dim" in text
        (True, False)
    """
    rows = []
    for name, keys in tables.items():
        cells = []
        for key, value in keys.items():
            words = escape(f"{key} = {value}")
            cells.append(f"<strong>{words}</strong>" if f"{name}.{key}" in changed else words)
        rows.append(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{", ".join(cells)}</td></tr>'
        )
    note = "in bold: not the default" if changed else "all defaults"
    return _card("Experiment", f"<table>{''.join(rows)}</table><small>{note}</small>")


def _png(figure: "Figure", dpi: int) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, facecolor="white")
    return picture.getvalue()


def _pairs(facts: Mapping[str, Any], heading: str = "") -> str:
    head = f'<tr><th colspan="2">{escape(heading)}</th></tr>' if heading else ""
    rows = "".join(
        f'<tr><td style="text-align:left">{escape(str(name))}</td>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{head}{rows}</table>"


def _card(title: str, *parts: str) -> str:
    inner = "".join(f"<div>{part}</div>" for part in parts)
    return (
        f"<div><strong>{escape(title)}</strong>"
        f'<div style="display:flex;gap:1.5em;flex-wrap:wrap;align-items:flex-start">{inner}</div></div>'
    )
