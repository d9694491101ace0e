"""The page of a run in a real browser: it shows what the trace says, by mouse, by keyboard, in the dark."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest

from analysis import Run, open_run
from runner import sweep
from runner.config.experiment import Experiment
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.studies.overview import overview
from runner.studies.report import report, verdict, write_report
from tests.commands import run as command

OLD = Path(__file__).parents[1] / "golden" / "schema-2"
RING = Experiment().with_values(
    {"task.tokens": 8, "task.prompts": 40, "run.rounds": 3, "run.trace": "full", "graph.kind": "ring",
     "graph.degree": 2, "channel.noise": 0.5}
)  # fmt: skip
HOSTILE = "</script><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(simulate(RING, out=tmp_path_factory.mktemp("runs")).folder or "")


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    """The page of the run."""
    return report([run.folder])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = str(paths[0])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(paths[1])))
    driver.set_window_size(1000, 900)
    yield driver
    driver.quit()


def shown(browser: Any, part: str) -> str:
    found: str = browser.find_element("css selector", f'[data-part="{part}"]').text
    return found


def opened(browser: Any, text: str, folder: Path) -> None:
    (folder / "page.html").write_text(text, encoding="utf-8")
    browser.get((folder / "page.html").as_uri())
    assert not browser.get_log("browser"), "no word in the console"


def press(browser: Any, part: str, times: int = 1) -> None:
    for _ in range(times):
        browser.find_element("css selector", f'[data-part="{part}"]').click()


def test_stepping_shows_what_the_trace_says(browser: Any, run: Run, text: str, tmp_path: Path) -> None:
    opened(browser, text, tmp_path)
    truth = int(run.truths.query("prompt == 0")["atom"].item())
    for index in range(4):
        assert shown(browser, "status") == f"Round {index} of 3"
        there = run.workspaces.query("prompt == 0 and round == @index").sort_values("position")
        tokens = browser.find_elements("css selector", ".token")
        assert [float(token.get_attribute("data-error")) for token in tokens] == pytest.approx(
            there["error"].tolist(), rel=1e-5
        )
        assert [float(token.get_attribute("data-true")) for token in tokens] == pytest.approx(
            there[f"belief_{truth}"].tolist(), rel=1e-5
        )
        risk = run.rounds["risk"][index]
        assert f"risk {float(f'{risk:.4g}')}" in shown(browser, "theory").replace("1.000", "1.0")
        if index < 3:
            press(browser, "next")
    press(browser, "back")
    assert shown(browser, "status") == "Round 2 of 3"
    said = run.messages.query("prompt == 0 and round == 2").set_index("sender")
    heard = shown(browser, "heard").splitlines()
    expected = [
        f"{sender} said {said['value'][sender]:+.2f} on code {said['code'][sender]}" for sender in (1, 7)
    ]
    assert sorted(heard) == expected


def test_the_tree_shows_the_belief_of_the_chosen_token(
    browser: Any, run: Run, text: str, tmp_path: Path
) -> None:
    opened(browser, text, tmp_path)
    press(browser, "next", 2)
    browser.find_elements("css selector", ".token")[5].click()
    row = run.workspaces.query("prompt == 0 and round == 2 and position == 5").iloc[0]
    beliefs = [row[f"belief_{atom}"] for atom in range(8)]
    masses = [float(one.get_attribute("data-mass")) for one in browser.find_elements("css selector", ".mass")]
    assert masses[-8:] == pytest.approx(beliefs, rel=1e-4, abs=1e-6)
    assert masses[1] == pytest.approx(sum(beliefs[:4]), rel=1e-4), "branches gather the atoms below them"
    assert f"{sum(row[f'correct_{level}'] for level in (1, 2, 3))} of 3 levels right" in shown(
        browser, "knows"
    )


def test_everything_is_reached_by_keyboard(browser: Any, run: Run, text: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, text, tmp_path)
    reached = set()
    for _ in range(40):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        part = active.get_attribute("data-part")
        reached.add(part or active.get_attribute("class") or active.tag_name)
        if part == "next":
            active.send_keys(Keys.ENTER)
        if active.get_attribute("class") and "token" in active.get_attribute("class"):
            active.send_keys(Keys.ARROW_RIGHT)
            break
    assert {"prompt", "play", "next", "round"} <= reached
    assert shown(browser, "status") == "Round 1 of 3"
    assert shown(browser, "token") == "Token 1"


def test_playing_goes_through_the_rounds_and_ends(browser: Any, run: Run, text: str, tmp_path: Path) -> None:
    opened(browser, text, tmp_path)
    press(browser, "play")
    until = time.monotonic() + 60
    while shown(browser, "status") != "Round 3 of 3" or shown(browser, "play") != "Play":
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("width", [400, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_the_dark(
    scheme: str, width: int, browser: Any, run: Run, text: str, tmp_path: Path
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        opened(browser, text, tmp_path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        back, ink = browser.execute_script(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        )
        assert contrast(back, ink) > 7
        assert luminance(back) < 0.1 if scheme == "dark" else luminance(back) > 0.9
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The ratio of the Web Content Accessibility Guidelines."""
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_tables_sort_and_filter(browser: Any, run: Run, text: str, tmp_path: Path) -> None:
    opened(browser, text, tmp_path)
    box = browser.find_element("css selector", ".sortable")
    head = box.find_elements("css selector", "th button")[1]
    head.click()
    column = [float(cell.text) for cell in box.find_elements("css selector", "tbody td:nth-child(2)")]
    assert column == sorted(column)
    head.click()
    column = [float(cell.text) for cell in box.find_elements("css selector", "tbody td:nth-child(2)")]
    assert column == sorted(column, reverse=True)
    box.find_element("css selector", "input").send_keys(str(column[2]))
    assert sum(row.is_displayed() for row in box.find_elements("css selector", "tbody tr")) == 1


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    names = [HOSTILE, "<img src=x onerror=alert(1)>", "&amp;", "'\""]
    graph = nx.relabel_nodes(nx.cycle_graph(4), dict(enumerate(names)))
    folder = simulate(RING.with_values({"task.tokens": 4}), graph=graph, out=tmp_path).folder
    text = report([open_run(folder or "").folder])
    assert HOSTILE not in text
    opened(browser, text, tmp_path)
    assert browser.title.startswith("tokenfield: run-")
    seen = {name.get_attribute("aria-label").split(", error")[0].removeprefix("token ")
            for name in browser.find_elements("css selector", ".token")}  # fmt: skip
    assert seen == set(names)


def test_a_run_of_very_many_tokens_opens_at_once_and_says_that_it_samples(
    browser: Any, tmp_path: Path
) -> None:
    many = {
        "task.tokens": 20_000,
        "task.prompts": 2,
        "graph.kind": "ring",
        "graph.degree": 2,
        "run.rounds": 2,
    }
    folder = simulate(RING.with_values({**many, "run.trace": "sampled"}), out=tmp_path).folder
    text = report([open_run(folder or "").folder])
    assert len(text) < 5 * 2**20
    opened(browser, text, tmp_path)
    assert "the first 64 of 20,000 tokens" in browser.find_element("tag name", "body").text


def test_the_numbers_of_the_verdict_are_measured(run: Run) -> None:
    found = overview(run)
    words = verdict(found)
    last = run.rounds.iloc[-1]
    assert f"to {last['risk']:.4f} ± {last['risk_se']:.4f} in 3 rounds" in words
    share = run.workspaces.query("round == 3").groupby("prompt")["correct_3"].mean().mean()
    assert f"{share:.2f}, from coarse to fine" in words
    ends = run.workspaces.query("round == 3")
    assert f"beliefs make {ends['error'].mean() / ends['claimed'].mean():.2f} ±" in words


def test_pages_of_sweeps_studies_older_runs_and_several(tmp_path: Path, run: Run) -> None:
    small = {"task.prompts": 10, "task.tokens": 4, "run.rounds": 1}
    swept = sweep(set=small, grid={"channel.bits": [2, 8]}, out=tmp_path, engine="local")
    last = swept.table.query("round == 1")
    text = report([swept.folder])
    assert "2 of 2 points are done" in text and f"{last['risk'].min():.4f}" in text
    study = tmp_path / "study"
    study.mkdir()
    (study / "verdict.txt").write_text("It <works>.")
    pd.DataFrame({"a": [1.5]}).to_parquet(study / "numbers.parquet")
    assert "It &lt;works&gt;." in report([study])
    assert "schema-2" in report([OLD, run.folder])
    assert write_report(study).name == "report.html"
    with pytest.raises(UsageError, match="of a run, of a sweep, or of a study"):
        report([tmp_path])


@pytest.mark.parametrize("trace", ["none", "rounds", "sampled"])
def test_a_page_holds_what_the_trace_allows(trace: str, tmp_path: Path) -> None:
    folder = simulate(RING.with_values({"run.trace": trace}), out=tmp_path).folder
    if trace == "none":
        with pytest.raises(FileNotFoundError):
            report([open_run(folder or "").folder])
        return
    assert ('class="explorer"' in report([open_run(folder or "").folder])) == (trace == "sampled")


def test_the_command_writes_the_page(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert command(["report", str(run.folder), "--out", str(page), "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(page)}
    text = page.read_text(encoding="utf-8")
    assert len(text) < 5 * 2**20
    loads = re.findall(r"(?:src|href)=[\"']?(https?:)?//", text.split("<body>")[0]) + re.findall(
        r"@import|url\(http", text
    )
    assert not loads, "nothing is loaded from elsewhere"
    assert command(["report", str(tmp_path / "none")], monkeypatch) == 2
