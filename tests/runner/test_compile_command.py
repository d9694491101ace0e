"""`tokenfield compile`: weights by construction, which answer as the agent does."""

import json
from pathlib import Path

import pytest

from runner.storage.arrays import read_arrays
from tests.commands import run

SMALL = ["prior.levels=2", "prior.dim=3", "run.rounds=2", "task.prompts=200", "run.trace=none"]
SETTINGS = [word for key in SMALL for word in ("--set", key)]


def test_the_compiled_weights_have_the_risk_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["compile", "demo", *SETTINGS, "--json", "--out", str(tmp_path)], monkeypatch) == 0
    answer = json.loads(capfd.readouterr().out)
    rows = {(row["source"], row["round"]): row["risk"] for row in answer["rows"]}
    assert len(rows) == 2 * 3
    for round in (0, 1, 2):
        assert rows["compiled", round] == pytest.approx(rows["agent", round], rel=0.02, abs=1e-3)
    header, arrays = read_arrays(Path(answer["run"]) / "weights.safetensors")
    assert header["channels"] == 1
    assert arrays["start"].shape == (answer["width"],)
    assert max(len(array) for name, array in arrays.items() if "update.0.bias" in name) == answer["hidden"]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("policy.kind=static", "policy.kind"),
        ("graph.kind=ring", "graph.kind"),
        ("prior.jitter=0.1", "policy.kind"),
        ("channel.channels=2", "policy.kind"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(
    setting: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compile", "demo", *SETTINGS, "--set", setting, "--out", str(tmp_path)]
    assert run(arguments, monkeypatch) == 2
    assert f"{key} = " in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
