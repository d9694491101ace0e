"""Transformers that lack a part: how they are compared, and when a claim counts as holding."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agents.transformer.model import Architecture, Transformer
from analysis.measures.ablation import gaps, medians
from analysis.measures.claims import verdicts
from analysis.measures.probes import FunctionVectors
from analysis.plots.ablation import risk_by_ablation
from runner.built import build
from runner.config.experiment import Experiment, load, parse
from runner.config.studies import Comparison
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.progress import Progress
from runner.studies import Findings, Session
from runner.studies.ablation import prepare
from runner.studies.variant_theory import predict_variant
from runner.training.evaluation import forward_on_prompts, last_risks, prompt_risk

PRESET = Path(__file__).parents[2] / "runner" / "config" / "presets" / "ablations.toml"
TINY: dict[str, object] = {
    "prior.levels": 2, "prior.dim": 3, "task.tokens": 16, "task.prompts": 200, "run.rounds": 2,
    "transformer.width": 16, "transformer.hidden": 32, "transformer.batch": 64, "transformer.steps": 40,
    "ablation.seeds": 2, "ablation.unconstrained": [], "ablation.theory_samples": 500,
    "ablation.null": ["full", "no feedforward"],
    "ablation.variants": {
        "full": {}, "no feedforward": {"transformer.feedforward": False},
        "looped": {"transformer.looped": True},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    comparison = load(Comparison, PRESET, TINY)
    out = tmp_path_factory.mktemp("runs")
    return prepare(comparison)(Session(LocalEngine(), out, 1, Progress(quiet=True), "ablations"))


def test_the_table_has_every_variant_depth_and_seed(ablated: Findings) -> None:
    trained = ablated.frames["rows"][ablated.frames["rows"]["source"] == "transformer"]
    counts = trained.groupby(["prior", "policy"]).size().to_dict()
    each = 2 * 2
    assert counts == {
        ("tree", "full"): each, ("tree", "no feedforward"): each, ("tree", "looped"): each,
        ("matched_gaussian", "full"): each, ("matched_gaussian", "no feedforward"): each,
    }  # fmt: skip
    keys = ["source", "prior", "policy", "depth", "seed"]
    assert not ablated.frames["rows"].duplicated(keys).any()
    assert np.isfinite(ablated.frames["rows"]["risk"]).all()
    told = ablated.frames["rows"][ablated.frames["rows"]["source"] == "theory"]
    assert set(told["policy"]) == {"full", "no feedforward", "looped"}
    assert (told["rule"] != "").all()


def test_agents_run_the_weights_of_every_depth_to_the_same_answers(ablated: Findings) -> None:
    same = ablated.frames["claims"][
        ablated.frames["claims"]["claim"].str.startswith("A transformer is a system")
    ]
    assert len(same) == 1
    assert same["holds"].all()
    assert 0 < float(same["effect"].iloc[0]) < 1e-9


def test_the_folder_holds_tables_figure_and_verdict(ablated: Findings) -> None:
    names = {path.name for path in ablated.folder.iterdir()}
    assert {"rows.parquet", "claims.parquet", "ablations.png", "ablations.svg", "verdict.txt"} <= names
    pd.testing.assert_frame_equal(pd.read_parquet(ablated.folder / "rows.parquet"), ablated.frames["rows"])
    assert (ablated.folder / "verdict.txt").read_text() == ablated.sentence + "\n"
    answer = json.loads(json.dumps(ablated.answer()))
    assert len(answer["rows"]) == len(ablated.frames["rows"])
    assert len(answer["claims"]) == len(ablated.frames["claims"])


def test_models_are_scored_at_once_as_they_are_alone() -> None:
    experiment = Experiment().with_values(
        {
            "policy.kind": "learned",
            "run.rounds": 3,
            "task.prompts": 600,
            "task.tokens": 8,
            "channel.noise": 0.5,
        }
    )
    models = [Transformer(Architecture(dim=7, layers=layers), seed=layers) for layers in (3, 1)]
    prompts = range(100, 700)
    together = last_risks(models, build(experiment), prompts, torch.float64)
    for model, risk in zip(models, together, strict=True):
        alone = experiment.with_values({"run.rounds": model.sizes.layers})
        expected = prompt_risk(forward_on_prompts(model, build(alone), prompts), build(alone), prompts)[-1]
        np.testing.assert_allclose(risk, expected, rtol=1e-12)


def rows_of(
    risks: dict[tuple[str, str, str], list[float]], seeds: int = 5, error: float = 0.001
) -> pd.DataFrame:
    """A table in which seed s of a transformer is off by (s - 2) %."""
    table = []
    for (source, prior, policy), curve in risks.items():
        for depth, risk in enumerate(curve, 1):
            for seed in range(seeds if source == "transformer" else 1):
                shift = 1 + 0.01 * (seed - 2) if source == "transformer" else 1
                table.append(
                    {
                        "source": source, "prior": prior, "policy": policy, "depth": depth, "seed": seed,
                        "risk": shift * risk, "risk_se": error * risk, "rule": "",
                    }
                )  # fmt: skip
    return pd.DataFrame(table)


NULL = "matched_gaussian"
RISKS = {
    ("transformer", "tree", "full"): [0.50, 0.20, 0.05, 0.02],
    ("transformer", "tree", "no feedforward"): [0.60, 0.45, 0.32, 0.27],
    ("transformer", "tree", "constant queries"): [0.51, 0.28, 0.19, 0.13],
    ("transformer", NULL, "full"): [0.58, 0.48, 0.37, 0.34],
    ("transformer", NULL, "no feedforward"): [0.58, 0.48, 0.38, 0.34],
    ("theory", "tree", "full"): [0.49, 0.20, 0.05, 0.02],
    ("theory", "tree", "no feedforward"): [0.58, 0.48, 0.37, 0.34],
    ("theory", NULL, "full"): [0.58, 0.48, 0.37, 0.34],
    ("limit", "tree", "limit"): [0.1, 0.01, 0.001, 0.001],
    ("limit", NULL, "limit"): [0.1, 0.01, 0.001, 0.001],
}


def vectors_of(
    probe: float = 0.98, before: float = 0.5, gain: float = 0.5, moved: float = 0.9
) -> FunctionVectors:
    layers, scales = range(4), range(1, 4)
    probes = [
        {"layer": layer, "scale": scale, "value": probe if layer >= scale else before, "se": 0.01}
        for layer in layers
        for scale in scales
    ]
    asked = [
        {"layer": layer, "scale": layer, "gain": gain, "gain_se": 0.01, "path": path}
        for layer in (2, 3)
        for path in ("true", "believed")
    ]
    patched = [
        {
            "layer": layer, "scale": scale, "pairs": "part", "tokens": "all", "se": 0.01, "control_se": 0.01,
            "value": moved if layer >= scale else 0.02, "control": 0.01,
        }
        for layer in layers
        for scale in scales
    ]  # fmt: skip
    frames = [pd.DataFrame(rows) for rows in (probes, asked, [], patched, [])]
    return FunctionVectors(*frames)


def scaled(source: str, prior: str, policy: str, factor: float, depth: int) -> Callable[[pd.DataFrame], None]:
    def change(rows: pd.DataFrame) -> None:
        chosen = (rows["source"] == source) & (rows["prior"] == prior) & (rows["policy"] == policy)
        rows.loc[chosen & (rows["depth"] == depth), "risk"] *= factor

    return change


def test_all_claims_hold_where_they_should() -> None:
    table = verdicts(rows_of(RISKS), 1e-14, vectors_of())
    assert len(table) == 10
    assert table["holds"].all(), table[~table["holds"]]
    assert (table["low"] <= table["effect"]).all()
    assert (table["effect"] <= table["high"]).all()


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (scaled("transformer", "tree", "full", 1.2, 2), "Transformers of every depth"),
        (scaled("transformer", "tree", "full", 0.01, 4), "No transformer is below"),
        (scaled("transformer", "tree", "no feedforward", 0.1, 4), "Feedforward blocks"),
        (scaled("transformer", "tree", "constant queries", 0.2, 3), "Queries that depend"),
        (scaled("transformer", NULL, "no feedforward", 1.06, 1), "Without a hierarchy"),
        (scaled("transformer", NULL, "full", 0.1, 3), "How much depth pays"),
    ],
)
def test_a_claim_fails_where_its_numbers_do(change: Callable[[pd.DataFrame], None], claim: str) -> None:
    rows = rows_of(RISKS)
    change(rows)
    table = verdicts(rows, 1e-14, vectors_of()).set_index("claim")
    (found,) = [name for name in table.index if name.startswith(claim)]
    assert not table.loc[found, "holds"]


@pytest.mark.parametrize(
    ("difference", "vectors", "claim"),
    [
        (1e-3, {}, "A transformer is a system"),
        (0.0, {"before": 0.98}, "The latent variable is inferred"),
        (0.0, {"gain": 0.02}, "The function vector says"),
        (0.0, {"moved": 0.02}, "Function vectors carry"),
    ],
)
def test_a_claim_about_function_vectors_fails_where_its_numbers_do(
    difference: float, vectors: dict[str, float], claim: str
) -> None:
    table = verdicts(rows_of(RISKS), difference, vectors_of(**vectors))
    (failed,) = table[~table["holds"]]["claim"]
    assert failed.startswith(claim)


def test_what_was_not_measured_is_not_judged() -> None:
    few = {key: value for key, value in RISKS.items() if key[2] == "full" and key[1] == "tree"}
    table = verdicts(rows_of(few), None, None)
    assert [claim.split(" says")[0] for claim in table["claim"]] == [
        "Transformers of every depth infer adaptively as well as theory"
    ]


def test_gaps_are_ratios_of_medians_and_their_intervals_hold_those_of_all_seeds() -> None:
    rows = rows_of(RISKS)
    table = gaps(rows, "tree").set_index(["policy", "depth"])
    np.testing.assert_allclose(table.loc[("constant queries", 4), "ratio"], 0.13 / 0.02)
    np.testing.assert_allclose(table.loc[("no feedforward", 3), "predicted"], 0.37 / 0.05)
    assert np.isnan(table.loc[("constant queries", 4), "predicted"])
    seeds = rows[(rows["source"] == "transformer") & (rows["prior"] == "tree") & (rows["depth"] == 4)]
    full = seeds[seeds["policy"] == "full"]["risk"]
    for risk in seeds[seeds["policy"] == "constant queries"]["risk"]:
        low, high = table.loc[("constant queries", 4), ["low", "high"]]
        assert low < (risk / full).min() < (risk / full).max() < high


def test_a_single_seed_has_the_interval_of_its_prompts() -> None:
    (row,) = medians(rows_of({("theory", "tree", "full"): [0.5]})).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((0.499, 0.501))


def test_theory_of_a_variant_follows_from_its_parts() -> None:
    small = {"prior.levels": 2, "prior.dim": 3, "run.rounds": 2, "task.tokens": 64}
    learned = Experiment().with_values({"policy.kind": "learned", "channel.noise": 2.0, **small})
    risks = {}
    for parts in ((True, True), (True, False), (False, False)):
        names = ("transformer.feedforward", "transformer.adaptive_queries")
        found = predict_variant(build(learned.with_values(dict(zip(names, parts, strict=True)))), 2_000)
        risks[parts] = found.risk
    assert risks[True, True][1] == pytest.approx(risks[True, False][1], rel=0.05)  # the first is a constant
    assert risks[True, True][2] < 0.95 * risks[True, False][2] < 0.8 * risks[False, False][2]
    gaussian = predict_variant(build(learned.with_values({"prior.kind": "matched_gaussian"})), 500)
    affine = predict_variant(build(learned.with_values({"transformer.feedforward": False})), 500)
    np.testing.assert_allclose(gaussian.risk[1:], affine.risk[1:])


def test_the_figure_shows_every_variant_and_prior() -> None:
    rows = pd.concat(
        [rows_of(RISKS), rows_of({("unconstrained", "tree", "softmax"): [0.1, 0.05, 0.01, 0.01]})]
    )
    figure = risk_by_ablation(rows, "caption")
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["Tree prior", "Null: matched Gaussian", "Gap"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"full", "no feedforward", "constant queries", "lines: theory", "below the limit"} <= set(labels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"graph.kind": "ring"}, "graph.kind"),
        ({"run.rounds": 0}, "run.rounds"),
        ({"ablation.null": ["nobody"]}, "one of full"),
        (
            {"ablation.variants": {"odd": {"transformer.colour": 1}}, "ablation.null": []},
            "transformer.colour",
        ),
        ({"ablation.variants": {"odd": {"transformer.width": -1}}, "ablation.null": []}, "transformer.width"),
        ({"channel.clip": 2.0, "transformer.sampling": "statistics"}, "channel.clip"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(values: dict[str, object], message: str) -> None:
    content = load(Comparison, PRESET).model_dump()
    comparison = parse(Comparison, content, values)
    with pytest.raises(UsageError, match=message):
        prepare(comparison)


@pytest.mark.slow
@pytest.mark.statistical
def test_the_claims_hold_on_the_preset_and_the_table_of_the_readme_is_what_is_measured(
    tmp_path: Path,
) -> None:
    few = {"ablation.seeds": 3, "ablation.unconstrained": [], "task.prompts": 10_000}
    found = prepare(load(Comparison, PRESET, few))(
        Session(LocalEngine(), tmp_path, 2, Progress(quiet=True), "ablations")
    )
    # Seeds of models and prompts are fixed, so there is no false alarm on one kind of processor.
    assert found.frames["claims"]["holds"].all(), found.sentence
    table = medians(found.frames["rows"][found.frames["rows"]["prior"] == "tree"]).set_index(
        ["source", "policy", "depth"]
    )["risk"]
    lines = (Path(__file__).parents[2] / "runner" / "README.md").read_text().splitlines()
    checked = 0
    for name in ("full", "looped", "no control variate", "constant queries", "no feedforward", "neither"):
        label = "one layer, looped" if name == "looped" else name
        (line,) = [line for line in lines if line.startswith(f"| {label} |")]
        for depth, cell in enumerate(line.strip("| ").split(" | ")[1:], 1):
            measured, _, theory = cell.rstrip(")").partition(" (")
            # Prompts and seeds are fewer here: 2 % in most cells, 8 % where errors are rare.
            assert table["transformer", name, depth] == pytest.approx(float(measured), rel=0.12)
            checked += 1
            if theory:
                assert table["theory", name, depth] == pytest.approx(float(theory), rel=0.02)
    assert checked == 24
