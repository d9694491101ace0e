"""`tokenfield theory`: complete answers, ordered limits, and figures, without an agent."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.bounds import physical_limit
from runner.display import Display
from runner.experiment import Experiment, load
from runner.plan import Comparison
from runner.simulation import simulate
from runner.theory import foretell, is_ordered
from runner.theory_figures import draw_figures
from tests.commands import run

DEMO = Experiment().with_values({"channel.noise": 1.0, "channel.bits": 16, "run.rounds": 3})
SYSTEMS: dict[str, dict[str, object]] = {
    "demo": {"run.rounds": 4},
    "static": {"policy.kind": "static", "policy.control_variate": False},
    "pooled": {"policy.kind": "static", "policy.order": "pooled", "policy.control_variate": False},
    "few bits": {"channel.bits": 2, "channel.clip": 3.0},
    "one bit, few tokens": {"channel.bits": 1, "channel.clip": 2.0, "task.tokens": 4},
    "two channels": {"channel.channels": 2, "run.rounds": 2},
    "ternary": {"prior.branching": 3, "prior.levels": 2, "prior.dim": 8, "run.rounds": 3},
    "random directions": {"prior.directions": "random", "prior.dim": 4, "run.rounds": 3},
    "jitter": {"prior.jitter": 0.3, "run.rounds": 2},
    "gaussian": {"prior.kind": "gaussian"},
    "matched gaussian": {"prior.kind": "matched_gaussian"},
    "noiseless": {"channel.noise": 0.0, "run.rounds": 3},
}


def test_the_answer_has_every_curve(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["theory", "demo", "--json", "--precision", "2000"], monkeypatch) == 0
    (line,) = capfd.readouterr().out.splitlines()
    answer = json.loads(line)
    for name in ("risk", "risk_se", "limit", "optimal", "mean_field", "infinite_tokens"):
        assert len(answer[name]) == 5, name
    assert 0 <= answer["bayes"][-1] < 1e-6 < 0.25 < answer["bayes"][0]
    assert answer["code_loss"] == pytest.approx(1.148, abs=0.005)
    assert sum(answer["allocation"]) == 4
    assert answer["limit"][0] == pytest.approx(1.0)


@pytest.mark.statistical
@pytest.mark.parametrize("name", SYSTEMS)
def test_limits_optimum_and_risk_are_in_order(name: str) -> None:
    foretold = foretell(DEMO.with_values(SYSTEMS[name]), precision=4000)
    assert is_ordered(foretold)
    if foretold.channel_optimal is not None:
        assert foretold.channel_greedy is not None
        assert foretold.channel_static is not None
        best = np.array(foretold.channel_optimal)
        assert (best <= np.array(foretold.channel_greedy) + 1e-12).all()
        assert (best <= np.array(foretold.channel_static) + 1e-12).all()
        assert (np.array(foretold.limit) <= best + np.array(foretold.channel_error) + 1e-12).all()


def test_is_ordered_can_fail() -> None:
    foretold = foretell(DEMO.with_values({"run.rounds": 1}), precision=500)
    assert is_ordered(foretold)
    broken = type(foretold)(**{**foretold.answer(), "limit": [1.0, 0.9]})  # type: ignore[arg-type]
    assert not is_ordered(broken)


@pytest.mark.parametrize("null", ["matched_gaussian", "gaussian"])
def test_the_optimum_gains_nothing_on_a_gaussian(null: str) -> None:
    foretold = foretell(DEMO.with_values({"prior.kind": null}), precision=500)
    assert foretold.channel_optimal is not None
    np.testing.assert_allclose(foretold.channel_optimal, foretold.channel_static, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("name", SYSTEMS)
def test_agents_stay_above_the_limits(name: str) -> None:
    experiment = DEMO.with_values({**SYSTEMS[name], "task.prompts": 1000})
    result = simulate(experiment)
    assert (result.risk >= physical_limit(experiment) - 3 * result.risk_se - 1e-12).all()


@pytest.mark.statistical
def test_every_preset_stays_above_the_limits() -> None:
    presets = sorted((Path(__file__).parents[1] / "runner" / "presets").glob("*.toml"))
    assert presets
    for preset in presets:
        comparison = load(Comparison, preset, {"task.prompts": 1000})
        for prior, policy in comparison.pairs():
            experiment = comparison.variant(prior, policy).with_values({"run.engine": "local"})
            result = simulate(experiment)
            margin = 3 * result.risk_se + 1e-12
            assert (result.risk >= physical_limit(experiment) - margin).all(), (preset, policy)


@pytest.mark.statistical
@pytest.mark.parametrize("policy", ["adaptive", "static", "gossip", "flood"])
@pytest.mark.parametrize("kind", ["ring", "star", "causal"])
def test_no_policy_is_predicted_below_the_limits_of_its_graph(kind: str, policy: str) -> None:
    """By state evolution or, for `flood`, in closed form: within three standard errors."""
    foretold = foretell(
        DEMO.with_values(
            {
                "graph.kind": kind,
                "policy.kind": policy,
                "channel.noise": 0.0 if policy == "flood" else 0.3,
                "channel.bits": 24,
            }
        ),
        precision=1000,
    )
    assert foretold.risk is not None
    assert is_ordered(foretold)
    assert foretold.allocation is foretold.code_loss is foretold.infinite_tokens is None


@pytest.mark.parametrize("keys", [{"policy.kind": "gradient"}, {"policy.kind": "learned"}])
def test_what_has_no_theory_is_null_and_the_limits_remain(keys: dict[str, object]) -> None:
    foretold = foretell(DEMO.with_values(keys), precision=500)
    assert foretold.risk is None
    assert foretold.optimal is None
    assert len(foretold.limit) == 4


def test_the_figures_are_drawn(tmp_path: Path) -> None:
    paths = draw_figures(DEMO.with_values({"run.rounds": 2}), tmp_path, 30, Display(quiet=True))
    assert [path.stem for path in paths] == [
        "depth-against-structure",
        "gain-of-adaptivity",
        "pooled-failure",
    ]
    assert all(path.stat().st_size > 20_000 and path.with_suffix(".svg").is_file() for path in paths)
