"""Presets of sweeps: FINDINGS.md says what their stored tables give, and a quick run agrees with them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from analysis.report.findings import FINDINGS
from runner.config.sweep import points_of, read_sweep, sweeps
from runner.errors import UsageError
from runner.sweeps.sweep import play_sweep
from tests.commands import run as command
from tests.findings import TEXT, between, block, stored

_SLOW = {"depth", "feedforward", "bandwidth", "context", "crossover", "locality"}
_FALSE_ALARM = 1e-4  # of each preset, over all of its points and rounds


def test_every_preset_has_a_finding_and_both_have_a_place() -> None:
    assert set(sweeps()) == set(FINDINGS)
    for name in sweeps():
        content, base = read_sweep(Path(name))
        assert content.finding == name and content.minutes and content.quick and content.quick.minutes
        full, quick = points_of(content, base), points_of(content.at_quick_size(), base)
        assert len(quick) <= len(full)
    quick_minutes = sum(read_sweep(Path(name))[0].at_quick_size().minutes or 0.0 for name in sweeps())
    assert quick_minutes < 15


@pytest.mark.parametrize("name", FINDINGS)
def test_the_text_is_what_the_stored_table_gives(name: str) -> None:
    found = between(name).search(TEXT.read_text())
    assert found and found[0].split("\n", 1)[1].rsplit("\n", 1)[0] == block(
        name, FINDINGS[name](stored(name))
    )


@pytest.mark.statistical
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one in _SLOW else one for one in FINDINGS]
)
def test_a_quick_run_agrees_with_the_stored_one(name: str, tmp_path: Path) -> None:
    """Points that differ in nothing but their prompts: z-scores at a false-alarm rate of 1e-4 a preset."""
    content, base = read_sweep(Path(name))
    content = content.at_quick_size()
    found = play_sweep(content, base, tmp_path, name, resume=False, engine="local")
    full, quick = stored(name), found.table
    keys = [key for key in found.keys if key in full and not key.startswith("transformer.")]
    if "policy.kind" in keys:  # a shorter training is another model
        full, quick = (part[part["policy.kind"] != "learned"] for part in (full, quick))
    both = quick.merge(
        full.astype({key: quick[key].dtype for key in keys}), on=[*keys, "round"], suffixes=("", "_full")
    )
    if len(both):
        spread = np.hypot(both["risk_se"].astype(float), both["risk_se_full"])
        # Risks that are nearly nothing come from prompts too rare for a normal law.
        sure = (both["risk"] > 0.01) & (both["risk_full"] > 0.01)
        z = ((both["risk"] - both["risk_full"]) / np.maximum(spread, 1e-3))[sure].abs()
        assert z.max() < norm.isf(_FALSE_ALARM / 2 / max(1, len(z)))
    assert found.verdict and len(found.claims) == len(FINDINGS[name](stored(name)).claims)


def test_the_command_says_the_time_beforehand_and_the_verdict_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["sweep", "byzantine", "--quick", "--engine", "local", "--out", str(tmp_path)]
    assert command(given, monkeypatch) == 0
    told = capsys.readouterr()
    assert "minutes on two cores" in told.err and "byzantine.png" in told.out
    assert "A trimmed mean bears many" in told.out
    assert command([*given, "--resume", "--json"], monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] and {claim["holds"] for claim in answer["claims"]} <= {True, False}
    folder = str(tmp_path / "sweep-byzantine-quick")
    page = tmp_path / "page.html"
    assert command(["report", folder, "--out", str(page)], monkeypatch) == 0
    text = page.read_text()
    assert answer["verdict"].removesuffix(".") in text and 'aria-label="byzantine"' in text


def test_a_finding_that_there_is_not_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    content, base = read_sweep(Path("byzantine"))
    with pytest.raises(UsageError, match=r"finding.*depth"):
        play_sweep(content.model_copy(update={"finding": "depht"}), base, tmp_path, "x", resume=False)
    for changed in ({"grid": {"intervene.tokens": (0, 1)}}, {"set": {**content.set, "task.tokens": 16}}):
        with pytest.raises(UsageError, match="finding"):
            play_sweep(content.model_copy(update=changed), base, tmp_path, "y", resume=False)
    few = content.at_quick_size().model_copy(update={"set": {**content.set, "task.prompts": 2}})
    first = play_sweep(few, base, tmp_path, "z", resume=False, engine="local")
    assert first.verdict
    assert (
        play_sweep(few.model_copy(update={"finding": None}), base, tmp_path, "z", resume=True).verdict is None
    )
    with pytest.raises(UsageError, match=r"preset.*depth"):
        read_sweep(Path("dept"))
    with pytest.raises(UsageError, match="quick"):
        content.model_copy(update={"quick": None}).at_quick_size()


def test_what_is_needed_is_where_the_logarithm_of_the_risk_crosses() -> None:
    from analysis.measures.needed import borne, each, needed, ratio, slope

    rows = pd.DataFrame(
        {"kind": ["a"] * 3 + ["b"] * 3, "round": [0, 1, 2] * 2, "risk": [1.0, 0.5, 0.02, 1.0, 0.9, 0.8],
         "risk_se": [0.0, 0.05, 0.002, 0.0, 0.0, 0.0]}
    )  # fmt: skip
    found = needed(rows[rows["kind"] == "a"])
    place = 1 + np.log(0.5 / 0.05) / np.log(0.5 / 0.02)
    assert found.value == pytest.approx(place)
    # By resampling both risks, at a false-alarm rate far below 1e-6 for the tolerance.
    generator = np.random.default_rng(1)
    logs = np.log([0.5, 0.02]) + 0.1 * generator.standard_normal((100_000, 2))
    crossings = 1 + (logs[:, 0] - np.log(0.05)) / (logs[:, 0] - logs[:, 1])
    assert found.se == pytest.approx(crossings.std(), rel=0.05)
    table = each(rows, ["kind"]).set_index("kind")
    assert np.isnan(table["value"]["b"]) and table["value"]["a"] == found.value
    rising = pd.DataFrame({"share": [0.0, 0.5, 1.0], "risk": [0.01, 0.04, 0.4], "risk_se": 0.0})
    assert 0.5 < borne(rising, "share").value < 0.6
    x, y, error = np.arange(5.0), np.array([1.0, 2.1, 2.9, 4.2, 5.0]), np.full(5, 0.1)
    assert slope(x, y, error).value == pytest.approx(np.polyfit(x, y, 1)[0])
    one, other = pd.Series({"risk": 0.2, "risk_se": 0.02}), pd.Series({"risk": 0.1, "risk_se": 0.02})
    assert ratio(one, other).value == pytest.approx(2) and ratio(one, other).se == pytest.approx(
        2 * np.hypot(0.1, 0.2)
    )
