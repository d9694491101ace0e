"""Unconstrained models: what each token can know, what they answer, how they are trained, kept and scored."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import networkx as nx
import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from scipy.stats import norm
from torch import Tensor

from agents.prior import draw_latent, gaussian
from agents.task import draw_tokens
from runner.built import build
from runner.config.experiment import Experiment
from runner.errors import DivergenceError, RunError, WeightsError
from runner.progress import Progress
from runner.storage.arrays import read_arrays, write_arrays
from runner.studies.estimators import estimator_risk
from runner.training import trained_baselines
from runner.training.baselines import (
    KINDS,
    Design,
    Kind,
    baseline_job_of,
    design_for,
    risk_on_prompts,
    train_baseline,
    train_baselines,
)
from runner.training.baselines.design import hears_of
from runner.training.baselines.linear import LinearSelfAttention
from runner.training.baselines.risk import draw_queries
from runner.training.baselines.softmax import MaskedSoftmax, Softmax
from runner.training.baselines.trainer import examples_at
from runner.training.store import Trained, load, path_of, save

FALSE_ALARM = 1e-3  # of each test that draws a sample
BOUND = float(norm.isf(FALSE_ALARM))
QUIET = Progress(quiet=True)
SMALL = Experiment().with_values(
    {"prior.levels": 2, "prior.dim": 3, "task.tokens": 6, "task.label_noise": 0.5, "task.prompts": 1500}
)
REFERENCE = Experiment().with_values({"task.tokens": 64, "task.prompts": 2000})
GAUSSIAN = Experiment().with_values(
    {"prior.kind": "gaussian", "prior.dim": 3, "task.tokens": 16, "task.prompts": 4000}
)
SHORT: dict[Kind, Design] = {
    "softmax": Design("softmax", 2, 16, 2, steps=30, batch=8),
    "masked softmax": Design("masked softmax", 2, 16, 2, steps=30, batch=8),
    "linear self-attention": Design("linear self-attention", 2, steps=30, batch=8),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lively(model: torch.nn.Module) -> Any:
    """The model in double precision with every weight moved, those that begin at zero too."""
    generator = torch.Generator().manual_seed(5)
    model = model.double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return model


def same(one: Trained[Any], other: Trained[Any]) -> bool:
    pairs = zip(sorted(one.state.items()), sorted(other.state.items()), strict=True)
    return all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs) and one.losses == other.losses


def mean_and_error(values: Float[np.ndarray, " B"]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


# What a token can know


@pytest.mark.parametrize("layers", [1, 3])
def test_an_answer_knows_the_examples_before_it_and_its_own_input_alone(layers: int) -> None:
    model = lively(Softmax(3, 7, 8, 2, layers, seed=1))
    inputs, labels, queries = draw(4, 7, 3), draw(4, 7, seed=1), draw(4, 2, 3, seed=2)
    before = model(inputs, labels, queries)
    for changed in range(7):
        other = labels.clone()
        other[:, changed] += 1.0
        after = model(inputs, other, queries)
        assert torch.equal(after[:, : changed + 1], before[:, : changed + 1])
        assert (after[:, changed + 1 :] != before[:, changed + 1 :]).all()  # queries too
        other = inputs.clone()
        other[:, changed] += 1.0
        after = model(other, labels, queries)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert (after[:, changed:] != before[:, changed:]).all()


def test_queries_do_not_see_each_other_and_have_one_position() -> None:
    model = lively(Softmax(3, 5, 8, 2, 3, seed=1))
    inputs, labels, queries = draw(4, 5, 3), draw(4, 5, seed=1), draw(4, 6, 3, seed=2)
    before = model(inputs, labels, queries)[:, 5:]
    for changed in range(6):
        other = queries.clone()
        other[:, changed] += 1.0
        after = model(inputs, labels, other)[:, 5:]
        rest = [index for index in range(6) if index != changed]
        assert torch.equal(after[:, rest], before[:, rest])
        assert (after[:, changed] != before[:, changed]).all()
        alone = model(inputs, labels, queries[:, changed : changed + 1])[:, 5:]
        torch.testing.assert_close(alone[:, 0], before[:, changed], rtol=1e-10, atol=1e-12)
    turned = model(inputs, labels, queries.flip(1))[:, 5:]
    torch.testing.assert_close(turned.flip(1), before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["path", "causal", "star", "grid", "random_regular"])
@pytest.mark.parametrize("layers", [1, 2])
def test_nothing_from_beyond_as_many_hops_as_layers_changes_a_bit(kind: str, layers: int) -> None:
    tokens = 16
    hears = hears_of(build(SMALL.with_values({"task.tokens": tokens, "graph.kind": kind})).mixing)
    assert hears is not None
    model = lively(MaskedSoftmax(3, hears, 8, 2, layers, seed=1))
    inputs, labels = draw(4, tokens, 3), draw(4, tokens, seed=1)
    before = model(inputs, labels)
    graph = nx.DiGraph([(j, i) for i, j in np.argwhere(hears).tolist()])  # j -> i: i hears j
    for changed in range(tokens):
        other = labels.clone()
        other[:, changed] += 1.0
        after = model(inputs, other)
        near = nx.single_source_shortest_path_length(graph, changed, cutoff=layers)
        for token in range(tokens):
            if token in near:
                assert (after[:, token] != before[:, token]).any(1).all()
            else:
                assert torch.equal(after[:, token], before[:, token])


def test_on_the_complete_graph_any_order_of_examples_gives_the_same_estimates_in_that_order() -> None:
    model = lively(MaskedSoftmax(3, hears_of(build(SMALL).mixing), 8, 2, 3, seed=1))
    inputs, labels, order = draw(4, 6, 3), draw(4, 6, seed=1), [3, 0, 5, 1, 4, 2]
    turned = model(inputs[:, order], labels[:, order])
    torch.testing.assert_close(turned, model(inputs, labels)[:, order], rtol=1e-10, atol=1e-12)


def test_tokens_have_positions_exactly_where_not_everyone_hears_everyone() -> None:
    ring = SMALL.with_values({"graph.kind": "ring", "graph.degree": 2})
    everyone = SMALL.with_values({"graph.kind": "erdos_renyi", "graph.degree": 5})  # of 6 tokens
    assert hears_of(build(SMALL).mixing) is None and hears_of(build(everyone).mixing) is None
    for experiment, placed in ((SMALL, False), (everyone, False), (ring, True)):
        model = MaskedSoftmax(3, hears_of(build(experiment).mixing), 8, 2, 1, seed=1)
        assert (model.places is not None) == placed


def test_weights_of_the_graph_do_not_count_but_who_hears_whom_does() -> None:
    path = SMALL.with_values({"graph.kind": "path"})
    for mixing in ("uniform", "metropolis"):
        hears = hears_of(build(path.with_values({"graph.mixing": mixing})).mixing)
        assert np.array_equal(cast(Any, hears), np.abs(np.subtract.outer(range(6), range(6))) <= 1)


# What linear self-attention computes


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_linear_self_attention_is_the_recursion_on_columns(layers: int) -> None:
    """Z <- Z + P Z M (Z' Q Z) / N, written out with the query as the last column."""
    model = lively(LinearSelfAttention(3, layers, seed=2))
    inputs, labels, queries = draw(4, 5, 3), draw(4, 5, seed=1), draw(4, 2, 3, seed=2)
    found = model(inputs, labels)
    values, matches = (part.detach().numpy() for part in (model.value, model.match))
    mask = np.diag([1.0] * 5 + [0.0])
    for prompt in range(4):
        examples = np.vstack([inputs[prompt].numpy().T, labels[prompt].numpy()])
        for query in queries[prompt].numpy():
            columns = np.hstack([examples, np.append(query, 0.0)[:, None]])
            for value, match in zip(values, matches, strict=True):
                columns = columns + value @ columns @ mask @ (columns.T @ match @ columns) / 5
            answer = float(found[prompt].detach().numpy() @ query)
            np.testing.assert_allclose(-columns[-1, -1], answer, rtol=1e-9)


def test_the_matrices_of_gradient_descent_give_its_steps() -> None:
    """P = e e', Q = -step diag(I, 0) in each layer are w <- w + step X'(y - X w) / N, from w = 0."""
    model = LinearSelfAttention(3, 3, seed=2).double()
    with torch.no_grad():
        model.value.zero_()[:, 3, 3] = 1.0
        model.match.zero_()[:, range(3), range(3)] = -0.4
    inputs, labels = draw(1, 5, 3), draw(1, 5, seed=1)
    x, y, w = inputs[0].numpy(), labels[0].numpy(), np.zeros(3)
    for _ in range(3):
        w = w + 0.4 * x.T @ (y - x @ w) / 5
    np.testing.assert_allclose(model(inputs, labels)[0].detach().numpy(), w, rtol=1e-12)


# Training


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_weights_bit_for_bit(kind: Kind) -> None:
    job = baseline_job_of(build(SMALL), SHORT[kind])
    one = train_baseline(job, "cpu")
    torch.manual_seed(1)  # no generator of others is used
    torch.set_num_threads(2)
    assert same(one, train_baseline(job, "cpu"))
    other = train_baseline(job._replace(design=replace(job.design, seed=1)), "cpu")
    assert all(not np.array_equal(one.state[name], other.state[name]) for name in _drawn(one))


def _drawn(trained: Trained[Any]) -> list[str]:
    """Weights whose initial values are drawn."""
    return [name for name in trained.state if name.endswith(("hidden.weight", "value", "match"))]


def test_the_channel_changes_no_weight_and_the_task_does() -> None:
    job = baseline_job_of(build(SMALL), SHORT["masked softmax"])
    other = SMALL.with_values({"channel.noise": 2.0, "policy.kind": "static", "run.rounds": 9})
    folder = Path()
    assert path_of(folder, job) == path_of(folder, baseline_job_of(build(other), job.design))
    changes: list[dict[str, object]] = [
        {"task.label_noise": 0.4}, {"task.tokens": 7}, {"prior.decay": 0.7}, {"run.seed": 1},
        {"graph.kind": "path"},
    ]  # fmt: skip
    paths = {
        path_of(folder, baseline_job_of(build(SMALL.with_values(change)), job.design)) for change in changes
    }
    assert len(paths | {path_of(folder, job)}) == 1 + len(changes)


def test_a_loss_that_explodes_is_reported_with_the_step() -> None:
    design = replace(SHORT["linear self-attention"], learning_rate=30.0)
    with pytest.raises(
        DivergenceError, match=r"2 layers is .* by step 30 of 30; try a learning rate below 30"
    ):
        train_baseline(baseline_job_of(build(SMALL), design), "cpu")
    with pytest.raises(RunError, match="training failed"):
        trained_baselines([baseline_job_of(build(SMALL), design)], Path("nowhere"), 1, QUIET)


def test_prompts_grow_to_all_examples_before_training_ends() -> None:
    grown = [examples_at(step, 100, 37) for step in range(100)]
    assert grown == sorted(grown) and grown[0] == 8 and set(grown[80:]) == {37}
    assert {examples_at(step, 100, 5) for step in range(100)} == {5}


@pytest.mark.parametrize(
    ("values", "named"),
    [({"layers": 0}, "layers = 0"), ({"width": 9, "heads": 2}, "width = 9"), ({"kind": "soft"}, "'soft'")],
)
def test_an_impossible_design_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    # Where shapes are checked, as they are here, another kind is refused even earlier.
    with pytest.raises(
        (ValueError, TypeCheckError), match=f"{named} is not possible; possible:|'kind': 'soft'"
    ):
        Design(**{"kind": "softmax", "layers": 1, **values})


# Weights in files


def test_trained_weights_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [baseline_job_of(build(SMALL.with_values({"graph.kind": "path"})), SHORT[kind]) for kind in KINDS]
    first = trained_baselines([*jobs, jobs[0]], tmp_path, 1, QUIET)
    assert same(first[0], first[3]) and len(list(tmp_path.iterdir())) == 3

    def untrained(*given: object) -> Sequence[Trained[Any]]:
        raise AssertionError("it is trained again")

    monkeypatch.setattr("runner.training.train_baselines", untrained)
    again = trained_baselines(jobs[::-1], tmp_path, 1, QUIET)[::-1]
    assert all(same(one, other) for one, other in zip(first[:3], again, strict=True))
    assert [trained.job for trained in again] == jobs


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"label_noise": 0.1}, "another experiment"),
        ({"design": replace(SHORT["masked softmax"], steps=31)}, r"another design.*'steps': 30.*'steps': 31"),
    ],
)
def test_weights_of_something_else_are_refused_by_name(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    job = baseline_job_of(build(SMALL), SHORT["masked softmax"])
    wanted = job._replace(**change)
    shutil.copy(save(tmp_path, train_baseline(job, "cpu")), path_of(tmp_path, wanted))
    with pytest.raises(WeightsError, match=f"{named}.*Delete it"):
        load(tmp_path, wanted)
    with pytest.raises(RunError, match=named):
        trained_baselines([wanted], tmp_path, 1, QUIET)


def test_weights_of_another_version_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    job = baseline_job_of(build(SMALL), SHORT["linear self-attention"])
    path = save(tmp_path, train_baseline(job, "cpu"))
    header, arrays = read_arrays(path)
    header["of"]["code"] = "0" * 16
    write_arrays(path, header, arrays)
    with pytest.raises(WeightsError, match="another version of the code"):
        load(tmp_path, job)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="damaged"):
        load(tmp_path, job)
    path.unlink()
    assert load(tmp_path, job) is None


def test_a_file_of_weights_holds_no_pickle(tmp_path: Path) -> None:
    job = baseline_job_of(build(SMALL.with_values({"graph.kind": "path"})), SHORT["masked softmax"])
    content = save(tmp_path, train_baseline(job, "cpu")).read_bytes()
    assert b"pickle" not in content and not content.startswith((b"\x80", b"PK"))


# Risk


def silent(kind: Kind, experiment: Experiment) -> Trained[Any]:
    """A model that always answers zero."""
    trained = train_baseline(baseline_job_of(build(experiment), replace(SHORT[kind], steps=1)), "cpu")
    last = {"softmax": "read_out", "masked softmax": "read_out", "linear self-attention": "value"}[kind]
    return replace(trained, state={name: value * (last not in name) for name, value in trained.state.items()})


@pytest.mark.parametrize("kind", ["masked softmax", "linear self-attention"])
def test_a_model_that_answers_zero_is_off_by_w(kind: Kind) -> None:
    prior = build(GAUSSIAN).prior
    expected = (draw_latent(prior, 0, range(5, 40)).vector ** 2).sum(axis=0) / prior.power()
    np.testing.assert_allclose(
        risk_on_prompts(silent(kind, GAUSSIAN), build(GAUSSIAN), range(5, 40)), expected
    )


@pytest.mark.statistical
def test_the_mean_over_queries_estimates_the_distance_from_w() -> None:
    prompts = range(3000)
    risk = risk_on_prompts(silent("softmax", GAUSSIAN), build(GAUSSIAN), prompts, queries=4)
    truth = (draw_latent(build(GAUSSIAN).prior, 0, prompts).vector ** 2).sum(axis=0)
    mean, error = mean_and_error(risk - truth)
    assert abs(mean) < norm.isf(FALSE_ALARM / 2) * error and error < 0.03


@pytest.mark.statistical
def test_queries_are_standard_normal_and_no_example_of_any_prompt() -> None:
    prior, prompts = gaussian(3), range(2000)
    queries = draw_queries(0, prompts, 4, 3)
    tokens = draw_tokens(draw_latent(prior, 0, prompts), 0.1, 0, prompts, np.arange(16))
    drawn = np.concatenate([queries.reshape(len(prompts), -1).T, tokens.inputs.reshape(48, -1)])
    moments = drawn @ drawn.T / len(prompts)
    spread = np.where(np.eye(60, dtype=bool), 2.0, 1.0) / len(prompts)
    z = (moments - np.eye(60)) / np.sqrt(spread)
    assert np.abs(z).max() < norm.isf(FALSE_ALARM / 2 / (60 * 61 / 2))
    assert not np.isin(queries, tokens.inputs).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_same_risk_alone_and_among_others(kind: Kind) -> None:
    trained = train_baseline(baseline_job_of(build(SMALL), SHORT[kind]), "cpu")
    among = risk_on_prompts(trained, build(SMALL), range(90, 230))
    for prompt in (90, 199, 229):
        alone = risk_on_prompts(trained, build(SMALL), range(prompt, prompt + 1))
        np.testing.assert_allclose(alone[0], among[prompt - 90], rtol=1e-9)


def test_a_model_of_another_task_is_refused_by_name() -> None:
    path = SMALL.with_values({"graph.kind": "path"})
    trained = train_baseline(baseline_job_of(build(path), replace(SHORT["masked softmax"], steps=1)), "cpu")
    for other, named in (
        (path.with_values({"task.tokens": 7}), "task.tokens = 7"),
        (path.with_values({"prior.dim": 4}), "prior.dim = 4"),
        (SMALL, "graph.kind = 'complete'"),
        (SMALL.with_values({"graph.kind": "star"}), "graph.kind = 'star'"),
    ):
        with pytest.raises(ValueError, match=f"{named} is not possible; possible:"):
            risk_on_prompts(trained, build(other), range(3))


@pytest.mark.statistical
def test_one_layer_of_linear_self_attention_is_trained_to_the_closed_form() -> None:
    """Paired by prompt: not below the best layer beyond chance, and within two per cent of it."""
    design = replace(design_for("linear self-attention", 1), steps=800)
    risk = risk_on_prompts(
        train_baseline(baseline_job_of(build(GAUSSIAN), design), "cpu"), build(GAUSSIAN), range(4000)
    )
    best = estimator_risk(build(GAUSSIAN))["linear attention"]
    mean, error = mean_and_error(risk - best)
    assert mean > -BOUND * error
    assert mean + BOUND * error < 0.02 * best.mean()


TINY: dict[Kind, Design] = {
    "softmax": Design("softmax", 2, 16, 2, steps=300, batch=32, learning_rate=1e-2),
    "masked softmax": Design("masked softmax", 1, 16, 2, steps=200, batch=32, learning_rate=1e-2),
    "linear self-attention": Design("linear self-attention", 2, steps=300, batch=64, learning_rate=1e-2),
}


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_beats_zero_and_is_not_below_bayes(kind: Kind) -> None:
    """Paired by prompt; a model below Bayes by luck alone is the false alarm."""
    prompts = range(SMALL.task.prompts)
    risk = risk_on_prompts(
        train_baseline(baseline_job_of(build(SMALL), TINY[kind]), "cpu"), build(SMALL), prompts
    )
    bayes = estimator_risk(build(SMALL))["Bayes"]
    mean, error = mean_and_error(risk)
    assert mean + BOUND * error < 0.9
    mean, error = mean_and_error(risk - bayes)
    assert mean > -BOUND * error


@pytest.mark.slow
def test_weights_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    jobs = [baseline_job_of(build(SMALL), SHORT[kind]) for kind in KINDS]
    told: set[int] = set()
    together = train_baselines(jobs, 2, lambda index, step, loss: told.add(index), tmp_path)
    assert told == {0, 1, 2}
    for job, one in zip(jobs, together, strict=True):
        assert same(one, train_baseline(job)) and same(one, cast(Trained[Any], load(tmp_path, job)))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_an_accelerator_trains_as_well(kind: Kind) -> None:
    trained = train_baseline(baseline_job_of(build(SMALL), TINY[kind]), "cuda")
    mean, error = mean_and_error(risk_on_prompts(trained, build(SMALL), range(SMALL.task.prompts)))
    assert mean + BOUND * error < 0.9
