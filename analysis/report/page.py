"""One self-contained page: verdict, numbers, figures, tables that sort, and an explorer of single prompts.

All that a reader could have named (nodes, keys, folders) is escaped; nothing is loaded from elsewhere.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.plots.graph import layout
from analysis.report.replay import steps
from analysis.traces.schema import numbered_columns

_ASSETS = Path(__file__).with_name("assets")
_MOST_ROWS = 400  # of a table
MOST_TOKENS = 64  # in the explorer; of more, the first
MOST_PROMPTS = 6
_MOST_EDGES = 2000
_DIGITS = 6
_WIDE = 1.8  # width over height from which a figure takes a row of its own
_NOTHING = 1e-12  # a number that is smaller is rounding

Trace = tuple[int, pd.DataFrame, pd.DataFrame, pd.DataFrame]  # prompt, messages, workspaces, truth


def page(title: str, sections: Sequence[str]) -> str:
    """A page of some sections.

    Example:
        >>> "<script>" in page("<script>", []).split("<body>")[1].split("<script")[0]
        False
    """
    style, code, d3 = (
        _ASSETS.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js", "d3.min.js")
    )
    body = "\n".join(sections)
    scripts = f"<script>{d3}</script>\n" if 'class="explorer"' in body else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n'
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n{scripts}<script>{code}</script>\n</body>\n</html>\n"
    )


def words(verdict: str, note: str = "") -> str:
    """The verdict, and what was run."""
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<p class="verdict">{escape(verdict)}</p>{below}'


def heading(text: str) -> str:
    """A heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def figures(drawn: Mapping[str, Figure | str]) -> str:
    """Figures as pictures within the page, side by side where there is room.

    Args:
        drawn: by name: figures of matplotlib, or SVG that was written before.
    """
    found: list[str] = []
    for name, figure in drawn.items():
        svg = figure if isinstance(figure, str) else _svg(figure)
        start = svg.index("<svg")
        label = escape(name.replace("-", " "), quote=True)
        picture = f'<svg role="img" aria-label="{label}"' + svg[start + 4 :]
        wide = ' class="wide"' if _aspect(svg) > _WIDE else ""
        found.append(f"<figure{wide}>{_unique(picture, len(found))}</figure>")
    return f'<div class="figures">{"".join(found)}</div>'


def table(name: str, frame: pd.DataFrame, opened: bool = False) -> str:
    """A table that sorts by a click on a heading, and filters.

    Args:
        name: above it.
        frame: the rows; of very many, the first.
        opened: whether it is seen without a click.
    """
    rows = frame.head(_MOST_ROWS)
    heads = "".join(f'<th scope="col"><button>{escape(str(column))}</button></th>' for column in rows)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in rows.itertuples(index=False)
    )
    cut = ""
    if len(frame) > len(rows):
        cut = f'<p class="note">The first {len(rows):,} of {len(frame):,} rows.</p>'
    label = escape(f"Filter {name}", quote=True)
    return (
        f"<details{' open' if opened else ''}><summary>{escape(name)}</summary>"
        f'<div class="sortable"><p><input type="search" placeholder="Filter" aria-label="{label}"></p>'
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>{cut}'
        "</div></details>"
    )


def explorer(
    graph: "nx.DiGraph[str]",
    nodes: pd.DataFrame,
    atoms: pd.DataFrame | None,
    traces: Sequence[Trace],
    risk: pd.DataFrame,
) -> str:
    """Single prompts, round by round: messages, beliefs on the tree of the prior, the graph.

    Args:
        graph: who hears whom.
        nodes: position and name.
        atoms: the prior; None in runs that are older than that table.
        traces: some prompts.
        risk: source (theory, agents), round, risk.
    """
    total = len(nodes)
    size = min(total, MOST_TOKENS)
    shown = nodes.head(size)
    names = [str(name) for name in shown["name"]]
    plain: nx.DiGraph[int] = nx.DiGraph()
    plain.add_nodes_from(range(size))
    place = {name: index for index, name in enumerate(names)}
    plain.add_edges_from((place[a], place[b]) for a, b in graph.edges if a in place and b in place)
    levels = 0 if atoms is None else len(numbered_columns(atoms, "branch"))
    numbered = [f"branch_{level}" for level in range(1, levels + 1)]
    branches = [] if atoms is None else atoms[numbered].to_numpy().tolist()
    drawn = layout(plain).places
    means = {source: part.sort_values("round")["risk"].tolist() for source, part in risk.groupby("source")}
    prompts = []
    for prompt, messages, workspaces, truth in traces[:MOST_PROMPTS]:
        few = workspaces[workspaces["position"] < size]
        said = messages[messages["sender"] < size]
        found = steps(said, few, shown, prompt)
        atom = int(truth["atom"].iloc[0]) if len(truth) else None
        rounds = [[_token(row) for row in part.to_dict("records")] for part in found.values()]
        prompts.append({"prompt": prompt, "true_atom": atom, "rounds": rounds})
    right = len(numbered_columns(traces[0][2], "correct"))
    content = {
        "names": names,
        "places": np.round(drawn, 3).tolist(),
        "edges": [list(edge) for edge in plain.edges][:_MOST_EDGES],
        "branches": branches,
        "atoms": 0 if atoms is None else len(atoms),
        "levels": right,
        "risk": _rounded(means.get("agents", [])),
        "theory": _rounded(means.get("theory", [])),
        "prompts": prompts,
    }
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    cut = ""
    if total > size:
        cut = (
            f'<p class="note">Shown are the first {size} of {total:,} tokens, and the links between them.</p>'
        )
    return _EXPLORER.replace("CONTENT", text).replace("CUT", cut)


_EXPLORER = """<section class="explorer" aria-label="Explorer">
<div class="controls">
<label>Prompt <select data-part="prompt"></select></label>
<button class="step" data-part="back" aria-label="Round before">◀</button>
<button class="step" data-part="play" aria-pressed="false">Play</button>
<button class="step" data-part="next" aria-label="Next round">▶</button>
<label>Round <input type="range" min="0" value="0" data-part="round"></label>
<strong data-part="status" aria-live="polite"></strong>
</div>
CUT
<div class="panes">
<svg data-part="graph" aria-label="Graph of the tokens; arrow keys choose one" role="group"></svg>
<div>
<h3 data-part="token" aria-live="polite"></h3>
<p class="fact" data-part="said"></p><p class="fact" data-part="knows"></p>
<svg data-part="tree" role="img" aria-label="Belief of the token over the tree of the prior"></svg>
<p class="fact" data-part="theory"></p>
<p class="fact">It hears:</p><ul data-part="heard"></ul>
</div>
</div>
<p class="note">Colours of tokens: belief in the truth, dark for none, bright for certain. Point at a token,
or choose one with the arrow keys, to see whom it hears and what is said.</p>
<script type="application/json">CONTENT</script>
</section>"""


def _token(row: Mapping[Any, Any]) -> dict[str, Any]:
    belief = [row[name] for name in numbered_columns(row, "belief")]
    known = bool(belief) and not any(pd.isna(value) for value in belief)
    return {
        "asked": row["asked"] if isinstance(row["asked"], str) else None,
        "said": row["said"] if isinstance(row["said"], str) else None,
        "clipped": row["clipped"] is True,
        "heard": _number(row["heard"]),
        "error": _number(row["error"]),
        "right": int(row["right"]),
        "entropy": _number(row["entropy"]),
        "belief": [_number(value) for value in belief] if known else None,
    }


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.{_DIGITS}g}")


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{float(value):.5g}" if abs(float(value)) > _NOTHING else "0"
    return str(value)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    return file.getvalue()


def _aspect(svg: str) -> float:
    """Width over height of a picture."""
    box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', svg)
    return float(box[1]) / float(box[2]) if box else 1.0


def _unique(svg: str, index: int) -> str:
    """Names within a picture made its own: those of two pictures on one page would be mixed."""
    return re.sub(r'((?:id="|href="#|url\(#))', rf"\1f{index}-", svg)
