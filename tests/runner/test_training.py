"""Training side by side, on statistics, with interruptions: the weights are those of training alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, norm

from agents.channel import Channel
from agents.prior import tree
from agents.transformer.model import Architecture, Transformer
from analysis.errors import UnreadableError
from runner.built import build
from runner.config.experiment import Experiment
from runner.errors import CheckpointError, DivergenceError, RunError, UsageError
from runner.progress import Progress
from runner.storage.arrays import read_arrays, write_arrays
from runner.training import trained_models
from runner.training.checkpoint import Checkpoint
from runner.training.job import Job, Recipe, address, job_of, recipe_for
from runner.training.prompts import PromptSource, Stream, Use, side_by_side
from runner.training.stack import Stack, WeightLayout
from runner.training.store import Trained
from runner.training.trainer import groups, train_all
from tests.trainings import train_job

CPU = torch.device("cpu")
FALSE_ALARM = 1e-3  # of the tests of one law against another, over all their statistics (Bonferroni)
SHORT = Recipe(steps=250, batch=32, warmup=20, sampling="statistics")
SMALL = Job(
    prior=tree(2, 2, 0.8, 3),
    label_noise=0.1,
    channel=Channel(channels=1, bits=16, clip=8.0, noise=0.5),
    mixing=np.full((1, 8), 1 / 8),
    architecture=Architecture(dim=3, layers=2, width=16, hidden=32),
    recipe=SHORT,
)
SAMPLINGS = ("tokens", "statistics")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def varied(job: Job, layers: int | None = None, **recipe: Any) -> Job:
    sizes = replace(job.architecture, layers=layers or job.architecture.layers)
    return job._replace(architecture=sizes, recipe=replace(job.recipe, **recipe))


def same(one: Trained[Any], other: Trained[Any]) -> bool:
    pairs = zip(sorted(one.state.items()), sorted(other.state.items()), strict=True)
    equal = all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs)
    return equal and one.losses == other.losses


def stack_of(job: Job, depths: Sequence[int], seed: int = 0) -> Stack:
    sizes = replace(job.architecture, layers=max(depths))
    size = WeightLayout(sizes).size
    return Stack(
        sizes, depths, 0.3 * torch.randn(len(depths), size, generator=torch.Generator().manual_seed(seed))
    )


VARIANTS = [
    {"feedforward": f, "adaptive_queries": a, "control_variate": c, "heads": h}
    for f, a, c, h in product([True, False], [True, False], [True, False], [1, 2])
] + [{"looped": True, "feedforward": f, "control_variate": c} for f, c in product([True, False], repeat=2)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rows", [1, 8])
def test_a_stack_computes_what_its_models_compute_alone(variant: dict[str, Any], rows: int) -> None:
    sizes = replace(SMALL.architecture, **variant)
    mixing = np.full((1, 8), 1 / 8) if rows == 1 else np.random.default_rng(0).dirichlet(np.ones(8), 8)
    channel = Channel(sizes.heads, bits=6, clip=1.5, noise=0.5)  # rounding and clipping that can be seen
    job = SMALL._replace(architecture=sizes, mixing=mixing, channel=channel)
    job = varied(job, sampling="tokens")
    depths = [3, 2, 2, 1]
    stack, material = stack_of(job, depths), PromptSource.of(job, CPU)
    draw = Stream(material, 0, 3).draw(20)
    estimates = stack.estimates(side_by_side(material, [draw], [0] * len(depths)))
    for row, depth in enumerate(depths):
        layout = WeightLayout(replace(sizes, layers=depth))
        model = Transformer(replace(sizes, layers=depth))
        state = layout.unpack(stack.rows[row].numpy())
        model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        inputs, noise = draw.first.movedim(0, -1), torch.stack(draw.noise).movedim(1, -1)
        alone = model(inputs, draw.second, material.mixing, channel, noise)
        for layer in range(depth):
            found = estimates[layer][row].unflatten(-1, (-1, rows)).movedim(0, -1)
            torch.testing.assert_close(found, alone[layer + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [{}, {"feedforward": False}, {"looped": True}])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_weights_hang_on_nothing_that_is_trained_beside_them(sampling: str, variant: dict[str, bool]) -> None:
    base = SMALL._replace(architecture=replace(SMALL.architecture, **variant))
    base = varied(base, sampling=sampling, steps=110)
    jobs = [
        varied(base, 1, steps=60), varied(base, 3), varied(base, 2, seed=1),
        varied(base, 2, learning_rate=3e-3),
        varied(base, 2),
    ]  # fmt: skip
    assert groups(jobs) == [[0, 1, 2, 3, 4]]
    together = train_all(jobs)
    assert all(same(one, train_job(job, device="cpu")) for one, job in zip(together, jobs, strict=True))
    assert same(together[1], train_all([jobs[1], jobs[4]])[0])


@pytest.mark.parametrize("feedforward", [True, False])
def test_weights_of_the_usual_size_hang_on_nothing_beside_them_either(feedforward: bool) -> None:
    sizes = Architecture(dim=7, layers=4, feedforward=feedforward)
    job = SMALL._replace(prior=tree(3, 2, 0.8, 7), architecture=sizes)
    jobs = [varied(job, layers, batch=512, steps=4 + layers) for layers in (1, 2, 3, 4)]
    together = train_all(jobs)
    assert all(same(one, train_job(job, device="cpu")) for one, job in zip(together, jobs, strict=True))


def test_models_whose_sizes_are_not_whole_cache_lines_are_trained_alone() -> None:
    odd = SMALL._replace(architecture=replace(SMALL.architecture, width=9))
    assert groups([odd, odd, SMALL, SMALL, varied(SMALL, batch=33)]) == [[0], [1], [2, 3], [4]]
    linear = SMALL._replace(architecture=replace(SMALL.architecture, feedforward=False))
    assert groups([SMALL, linear, varied(SMALL, 1), varied(SMALL, sampling="tokens")]) == [[0, 2], [1], [3]]


def heard(job: Job, count: int) -> np.ndarray:
    """Some functions of what is heard in two layers of a stack of one [count, statistics]."""
    material = PromptSource.of(job, CPU)
    prompts = side_by_side(material, [Stream(material, 4, 2).draw(count)], [0])
    dim = job.prior.dim
    query = torch.zeros(1, 1, dim, count)
    query[:, :, 0], query[:, :, 1] = 0.6, 0.8
    scale, said = torch.ones(1, 1, count), torch.full((1, 1, count), 0.2)
    near = 0.9 * prompts.task  # a control variate that knows nearly all
    columns = [prompts.task[0]]
    for layer, vector in ((0, None), (1, torch.full((1, dim, count), 0.3)), (1, near)):
        columns.append(prompts.heard.field(query, scale, vector, said, layer)[0])
    return torch.cat(columns).T.numpy()


@pytest.mark.statistical
@pytest.mark.parametrize("tokens", [2, 8, 33])
def test_statistics_have_the_law_of_tokens(tokens: int) -> None:
    """Fewer tokens than dimensions, about as many, and more: means, variances, products and whole laws."""
    count = 20_000
    job = SMALL._replace(mixing=np.full((1, tokens), 1 / tokens), channel=replace(SMALL.channel, clip=40.0))
    one, other = (heard(varied(job, sampling=sampling, seed=5), count) for sampling in SAMPLINGS)
    pairs = list(product(range(one.shape[1]), repeat=2))
    bound = norm.isf(FALSE_ALARM / (4 * (one.shape[1] + len(pairs))))
    for power in (1, 2):
        columns = [(one, other)] if power == 1 else [
            (np.stack([x[:, i] * x[:, j] for i, j in pairs], axis=1) for x in (one, other))
        ]  # fmt: skip
        for mine, theirs in columns:
            error = np.sqrt((mine.var(axis=0) + theirs.var(axis=0)) / count)
            assert (np.abs(mine.mean(axis=0) - theirs.mean(axis=0)) < bound * error + 1e-12).all()
    values = [ks_2samp(one[:, i], other[:, i]).pvalue for i in range(one.shape[1])]
    assert min(values) > FALSE_ALARM / (2 * len(values))


def test_training_and_validation_share_no_prompt_and_no_seed() -> None:
    material = PromptSource.of(varied(SMALL, sampling="tokens"), CPU)
    drawn = [{x.tobytes() for x in Stream(material, 0, 2, use).draw(500).first[0].numpy()} for use in Use]
    assert not drawn[0] & drawn[1] and len(drawn[0]) == 500
    seeds = [
        {generator.initial_seed() for generator in Stream(material, seed, 3, use)._generators}
        for use in Use
        for seed in range(20)
    ]
    for training, validation in product(seeds[:20], seeds[20:]):
        assert not training & validation


def interrupted(jobs: Sequence[Job], folder: Path, after: int) -> None:
    """Train until so many reports were made, then stop as by a failure of the machine."""
    told = 0

    def tell(index: int, step: int, loss: float) -> None:
        nonlocal told
        told += 1
        if told == after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_all(jobs, on_progress=tell, folder=folder, save_seconds=0)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_training_that_was_interrupted_goes_on_to_the_same_weights(
    sampling: str, after: int, tmp_path: Path
) -> None:
    jobs = [varied(SMALL, layers, sampling=sampling, patience=50) for layers in (1, 2)]
    expected = train_all(jobs)
    interrupted(jobs, tmp_path, after)
    assert list(tmp_path.glob("*.checkpoint.safetensors"))
    found = train_all(jobs, folder=tmp_path)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    assert found[0].validation == expected[0].validation
    assert not list(tmp_path.glob("*checkpoint*")) and len(list(tmp_path.iterdir())) == 2


def test_models_that_stand_at_different_steps_join_again(tmp_path: Path) -> None:
    jobs = [varied(SMALL, layers) for layers in (1, 2)]
    expected = train_all(jobs)
    interrupted(jobs, tmp_path, 4)
    (tmp_path / f"{address(jobs[1])}.checkpoint.safetensors").unlink()
    assert all(same(a, b) for a, b in zip(train_all(jobs, folder=tmp_path), expected, strict=True))


KILLED = """
import sys
from pathlib import Path
from tests.trainings import train_job
from tests.runner.test_training import LONG
train_job(LONG, device="cpu", folder=Path(sys.argv[1]), save_seconds=0,
      on_progress=lambda step, loss: print(step, flush=True))
"""
LONG = varied(SMALL, 1, steps=1500)


def test_a_process_that_is_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL at moments between, and perhaps within, the writing of checkpoints."""
    reached = [0]
    for moment in (0.0, 0.013, 0.004):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            first = int(process.stdout.readline())
            assert reached[-1] <= first <= reached[-1] + 300  # it went on where the last one was killed
            reached += [first, int(process.stdout.readline())]
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            reached += [int(line) for line in process.stdout]
        assert process.returncode == -signal.SIGKILL
    found = train_job(LONG, device="cpu", folder=tmp_path)
    assert same(found, train_job(LONG, device="cpu"))
    assert reached[-1] < LONG.recipe.steps and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_noise": 0.2}, r"another experiment.*it is of [0-9a-f]+, expected was [0-9a-f]+"),
        (
            {"architecture": replace(SMALL.architecture, width=32)},
            r"another architecture: it is of \{'width': 16\}, expected was \{'width': 32\}",
        ),
        (
            {"recipe": replace(SHORT, seed=7)},
            r"another recipe: it is of \{'seed': 0\}, expected was \{'seed': 7\}",
        ),
        ({}, "another version of the code"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted([SMALL], tmp_path, 2)
    (path,) = tmp_path.iterdir()
    other = SMALL._replace(**change)
    path = path.rename(tmp_path / f"{address(other)}.checkpoint.safetensors")
    if not change:
        monkeypatch.setattr(torch, "__version__", "0")
    with pytest.raises(CheckpointError, match=f"{path} is a checkpoint of {message}.*Delete it"):
        train_all([other], folder=tmp_path)
    assert path.exists()


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    interrupted([SMALL], tmp_path, 2)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"{path}.*damaged.*Delete it"):
        Checkpoint(tmp_path, SMALL).load()


def test_files_hold_no_pickle_and_reading_one_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, {"a": [1, "b"]}, {"layers.0.weight": np.arange(3.0)})
    header, arrays = read_arrays(path)
    assert header == {"a": [1, "b"]} and arrays["layers.0.weight"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="object"):
        write_arrays(path, {}, {"object": np.array([{}])})
    assert [file.name for file in tmp_path.iterdir()] == ["arrays.safetensors"]  # the old one, whole
    assert read_arrays(path)[0] == header
    with path.open("wb") as file:
        np.savez(file, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UnreadableError, match="damaged or not a file of tokenfield"):
        read_arrays(path)


@pytest.mark.parametrize("explodes", [True, False])
def test_divergence_is_reported_with_the_last_good_checkpoint(
    explodes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 50.0 if explodes else float("nan")
    monkeypatch.setattr(Recipe, "rate", lambda self, step: 1e-3 if step < 210 else rate)
    with pytest.raises(DivergenceError, match=r"step 250 of 250; try a learning rate below 0\.01") as caught:
        train_all([SMALL], folder=tmp_path, save_seconds=0)
    (path,) = tmp_path.iterdir()
    assert (caught.value.step, caught.value.checkpoint, caught.value.checkpoint_step) == (250, path, 200)
    assert str(path) in str(caught.value)
    training = Checkpoint(tmp_path, SMALL).load()
    assert training is not None and np.isfinite(training.weights).all() and training.step == 200


def test_training_stops_on_a_plateau_and_keeps_the_best_weights() -> None:
    easy = SMALL._replace(architecture=replace(SMALL.architecture, layers=1, feedforward=False))
    job = varied(easy, steps=2400, patience=4, learning_rate=2e-2)
    trained = train_job(job, device="cpu")
    steps, risks = zip(*trained.validation, strict=True)
    assert steps[-1] < 2400 and steps[-1] == trained.losses[-1][0]
    assert min(risks[-4:]) > (1 - 1e-3) * min(risks[:-4])
    cut = varied(job, patience=0)
    assert not np.array_equal(train_job(cut, device="cpu").state["readout"], trained.state["readout"])


def small_experiment(**values: object) -> Experiment:
    settings = {
        "policy.kind": "learned", "prior.levels": 2, "prior.dim": 3, "task.tokens": 8, "run.rounds": 1,
        "transformer.width": 16, "transformer.hidden": 32, "transformer.steps": 150, "transformer.batch": 32,
    }  # fmt: skip
    return Experiment().with_values(settings | values)


@pytest.mark.parametrize(
    ("values", "sampling"),
    [
        ({}, "statistics"),
        ({"transformer.sampling": "tokens"}, "tokens"),
        ({"graph.kind": "ring"}, "tokens"),
        ({"channel.bits": 7}, "tokens"),
        ({"channel.clip": 5.0}, "tokens"),  # 4 standard deviations are 5.67
        ({"channel.clip": 6.0}, "statistics"),
        ({"channel.noise": 2.0}, "tokens"),
    ],
)
def test_statistics_are_sampled_where_they_say_what_is_heard(
    values: dict[str, object], sampling: str
) -> None:
    assert job_of(build(small_experiment(**values))).recipe.sampling == sampling
    if sampling == "tokens" and "transformer.sampling" not in values:
        with pytest.raises(UsageError, match=r"transformer.sampling = 'statistics' is not possible.*clip"):
            job_of(build(small_experiment(**values, **{"transformer.sampling": "statistics"})))


def test_models_that_were_trained_before_a_failure_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = small_experiment(), small_experiment(**{"run.rounds": 2, "transformer.steps": 250})
    monkeypatch.setattr(Recipe, "rate", lambda self, step: 1e-3 if step < 160 else 1e4)
    with pytest.raises(RunError, match=r"training failed: .* by step 200 of 250.*learning_rate"):
        trained_models([build(good), build(bad)], tmp_path, 1, Progress(quiet=True))
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    trained_models([build(good)], tmp_path, 1, Progress(quiet=True))
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [before]


@pytest.mark.gpu
def test_an_accelerator_trains_side_by_side() -> None:
    jobs = [varied(SMALL, layers, steps=recipe_for(SMALL.architecture).steps) for layers in (1, 2)]
    assert all(trained.losses[-1][1] < 0.6 for trained in train_all(jobs))
