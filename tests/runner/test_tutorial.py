"""The tutorial runs from top to bottom as a notebook, and what its prose says is what its cells give."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

_HERE = Path(__file__).parents[2]
_FACTS = """
import json
last = defended["round"].max()
end = lambda frame: frame[(frame["position"] >= 8) & (frame["round"] == last)]["value"].mean()
print(json.dumps({
    "adaptive": adaptive.risk.tolist(), "static": static.risk.tolist(),
    "theory": {kind: rows["risk"].tolist() for kind, rows in theory.items()},
    "asked": asked.groupby("round")["code"].nunique().to_dict(),
    "entropy": entropy.pivot(index="round", columns="level", values="value").values.tolist(),
    "lies": end(lies), "defended": end(defended), "noises": noises.last["risk"].tolist(),
}))
"""


@pytest.fixture(scope="module")
def notebook() -> Iterator[Any]:
    read = jupytext.read(_HERE / "tutorial.py")
    read.cells.append(nbformat.v4.new_code_cell(_FACTS))
    NotebookClient(
        read, timeout=300, kernel_name="python3", resources={"metadata": {"path": _HERE}}
    ).execute()
    yield read


def test_what_the_tutorial_says_is_what_its_cells_give(notebook: Any) -> None:
    facts = json.loads(notebook.cells[-1].outputs[0]["text"])
    assert facts["adaptive"][3] < 0.01 < 0.1 < facts["static"][3], "three rounds, one for each level"
    assert facts["static"][6] > 0.01 > facts["static"][7], "static queries go through all seven directions"
    for kind in ("adaptive", "static"):
        assert facts["theory"][kind] == pytest.approx(facts[kind], abs=0.03)
    assert [facts["asked"][index] for index in ("1", "2", "3")] == [1, 2, 4]
    for index, row in enumerate(facts["entropy"][:4]):
        known, open_ = row[:index], row[index:]
        assert all(value < 0.01 for value in known) and all(value > 0.9 for value in open_)
    assert facts["lies"] > 0.1 > 0.02 > facts["defended"], "a trimmed mean is hard to lie to"
    assert facts["noises"] == sorted(facts["noises"])


def test_what_cells_show_are_tables_pictures_and_bars(notebook: Any) -> None:
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert sum("data:image/png" in page for page in pages) == 1, "a simulation, with its figure"
    assert any("<strong>tokens = 64</strong>" in page for page in pages), "keys that are not the default"
    assert any("<progress" in page for page in pages)
    assert sum("image/png" in data for data in shown) == 1, "a figure"


def test_a_stored_run_is_a_table_and_a_picture_in_a_notebook(tmp_path: Path) -> None:
    setup = f"""
import analysis, runner
small = runner.Experiment().with_values({{"task.prompts": 20, "task.tokens": 6, "run.trace": "full"}})
run = analysis.open_run(runner.simulate(small, out={str(tmp_path)!r}, name="mine").folder)
"""
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(setup), nbformat.v4.new_code_cell("run")]
    )
    NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": _HERE}}
    ).execute()
    shown = book.cells[1].outputs[0]["data"]
    assert "mine-" in shown["text/html"] and "data:image/png" in shown["text/html"]
    assert "after round 3" in shown["text/html"] and shown["text/plain"].startswith("Run('mine-")
