"""The trained transformer and the message-passing tokens are one computation, and training is repeatable."""

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents.channel import Channel
from agents.prior import gaussian, tree
from agents.rng import Purpose, normals
from agents.step import Aggregate, Block, System, draw_block, step
from agents.transformer.export import export
from agents.transformer.model import Architecture, Transformer, transmit
from runner.built import build
from runner.config.experiment import Experiment
from runner.training.evaluation import forward_on_prompts, last_risks
from runner.training.job import Job, Recipe, cache_key
from runner.training.store import Trained, load, save
from runner.training.trainer import train_all
from tests.trainings import train_job
from topology.mixing import Mixing, everyone, past

ROOT = Path(__file__).parents[2]

TOKENS, PROMPTS, SEED = 6, range(40, 60), 5
PRIOR = tree(2, 2, 0.8, 3)
GRAPHS = {"complete": everyone, "causal": past}
TINY = Job(
    prior=PRIOR,
    label_noise=0.1,
    channel=Channel(channels=1, bits=16, clip=8.0, noise=0.5),
    mixing=np.full((1, 8), 1 / 8),
    architecture=Architecture(dim=3, layers=2, width=8, hidden=16),
    recipe=Recipe(steps=250, batch=128, warmup=20),
)


def random_model(sizes: Architecture, seed: int) -> Transformer:
    """Every weight is random, those that training would start at zero too."""
    model = Transformer(sizes, seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias, std=0.5, generator=generator)
            if layer.weight.requires_grad:
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
    nn.init.normal_(model.readout, std=0.3, generator=generator)
    return model


def weights(mixing: Mixing) -> np.ndarray:
    dense = mixing.weights.toarray().astype(float)
    return dense / dense.sum(axis=1, keepdims=True)


def agents_estimates(system: System, place: Block, mixing: Mixing) -> tuple[np.ndarray, int]:
    """Estimate of each token after each round [L + 1, n, d, B], and how many values were clipped."""
    policy: Any = system.policy
    positions = np.arange(TOKENS)
    now = step(system, place, None, None, None, 0)
    estimates, clipped = [policy.estimate(now.state)], 0
    for round in range(1, system.rounds + 1):
        assert now.sent is not None
        clipped += int(now.report.clipped.sum())
        aggregate = Aggregate(*mixing.aggregate(now.sent.codes, now.sent.wire, policy.codes, positions))
        now = step(system, place, now.state, now.sent, aggregate, round)
        estimates.append(policy.estimate(now.state))
    return np.stack(estimates), clipped


def transformer_estimates(
    model: Transformer, place: Block, channel: Channel, mixing: Mixing, dtype: torch.dtype
) -> np.ndarray:
    """The same from the torch module, fed with the same examples and transmitter noise."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype)

    noise = [
        [
            normals(SEED, Purpose.CHANNEL, PROMPTS, channel.channels, position, round).T
            for position in range(TOKENS)
        ]
        for round in range(1, model.sizes.layers + 1)
    ]  # [L][N][B, K]
    tokens = place.tokens
    with torch.no_grad():
        estimates = model.to(dtype)(
            tensor(tokens.inputs.transpose(2, 0, 1)),
            tensor(tokens.labels.T),
            tensor(weights(mixing)),
            channel,
            tensor(np.array(noise).transpose(0, 2, 1, 3)),
        )
    result = estimates.numpy().transpose(0, 2, 3, 1)
    return np.broadcast_to(result, (len(result), TOKENS, *result.shape[2:]))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(
    ("feedforward", "adaptive_queries", "control_variate", "looped"),
    [(*parts, False) for parts in product([True, False], repeat=3)] + [(True, True, True, True)],
)
def test_the_transformer_computes_what_its_agents_compute(
    graph: str,
    heads: int,
    feedforward: bool,
    adaptive_queries: bool,
    control_variate: bool,
    looped: bool,
) -> None:
    sizes = Architecture(
        3, 3, heads, width=7, hidden=11, feedforward=feedforward,
        adaptive_queries=adaptive_queries, control_variate=control_variate, looped=looped,
    )  # fmt: skip
    model, mixing = random_model(sizes, seed=heads), GRAPHS[graph](TOKENS)

    coarse = Channel(heads, bits=6, clip=1.5, noise=0.5)  # rounding and clipping that can be seen
    system = System(PRIOR, 0.1, SEED, coarse, export(model), sizes.layers)
    place = draw_block(system, np.arange(TOKENS), PROMPTS)
    agents, clipped = agents_estimates(system, place, mixing)
    torched = transformer_estimates(model, place, coarse, mixing, torch.float64)
    assert clipped > 0
    assert np.abs(np.diff(agents, axis=0)).max() > 0.1
    assert np.abs(agents - torched).max() < 1e-10

    fine = Channel(heads, bits=24, clip=8.0, noise=0.5)
    agents, _ = agents_estimates(replace(system, channel=fine), place, mixing)
    torched = transformer_estimates(model, place, fine, mixing, torch.float32)
    assert np.abs(agents - torched).max() < 1e-5 * np.abs(agents).max()


def test_one_row_of_weights_serves_every_token() -> None:
    model = random_model(Architecture(3, 2, 2, width=5, hidden=8), seed=1)
    inputs, labels, noise = torch.randn(4, 6, 3), torch.randn(4, 6), torch.randn(2, 4, 6, 2)
    channel = Channel(2, bits=24, noise=0.3)
    shared = model(inputs, labels, torch.full((1, 6), 1 / 6), channel, noise)
    apart = model(inputs, labels, torch.full((6, 6), 1 / 6), channel, noise)
    assert shared.shape == (3, 4, 1, 3) and apart.shape == (3, 4, 6, 3)
    assert torch.allclose(shared.expand_as(apart), apart, atol=1e-5)


def test_silent_transmitters_add_nothing() -> None:
    model = random_model(Architecture(3, 2, 1, width=5, hidden=8), seed=1)
    inputs, labels, mixing = torch.randn(4, 6, 3), torch.randn(4, 6), torch.full((1, 6), 1 / 6)
    silent = model(inputs, labels, mixing, Channel(noise=1.0), None)
    still = model(inputs, labels, mixing, Channel(noise=0.0), torch.randn(2, 4, 6, 1))
    assert torch.equal(silent, still)


def test_the_gradient_passes_straight_through_the_rounding() -> None:
    channel = Channel(bits=2, clip=3.0)
    values = torch.tensor([-9.0, -1.2, 0.9, 2.0], requires_grad=True)
    rounded = transmit(values, channel)
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    wire = channel.encode(values.detach().numpy()).wire.astype(np.int64)
    assert rounded.tolist() == channel.decode(wire, np.ones(4, dtype=np.int64)).tolist()
    assert values.grad is not None and values.grad.tolist() == [0.0, 1.0, 1.0, 1.0]


def test_every_weight_feels_a_finite_gradient() -> None:
    model = random_model(Architecture(3, 2, 1, width=5, hidden=8), seed=2)
    inputs, labels, mixing = torch.randn(32, 6, 3), torch.randn(32, 6), torch.full((1, 6), 1 / 6)
    model(inputs, labels, mixing, Channel(bits=3, clip=2.0), None)[-1].square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0, name


def test_constant_queries_stay_constant_in_training() -> None:
    job = TINY._replace(architecture=replace(TINY.architecture, adaptive_queries=False))
    trained = train_job(job._replace(recipe=replace(job.recipe, steps=20)), device="cpu")
    assert all(not layer.query.weight.any() for layer in export(trained.model()).layers)


def same(one: Trained[Any], other: Trained[Any]) -> bool:
    pairs = zip(sorted(one.state.items()), sorted(other.state.items()), strict=True)
    return all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs)


def test_training_lowers_the_risk_and_can_be_repeated_bit_for_bit() -> None:
    told: list[tuple[int, float]] = []
    first = train_job(TINY, device="cpu", on_progress=lambda step, loss: told.append((step, loss)))
    assert first.losses == told and [step for step, _ in told] == [100, 200, 250]
    assert told[-1][1] < 0.5 < told[0][1] < 1.1
    torch.rand(7)  # the weights hang on no generator but the recipe's
    assert same(first, train_job(TINY, device="cpu"))
    other = TINY._replace(recipe=replace(TINY.recipe, seed=1))
    assert not same(first, train_job(other, device="cpu"))


def test_processes_train_what_one_process_trains() -> None:
    deeper = TINY._replace(architecture=replace(TINY.architecture, layers=3))
    jobs = [job._replace(recipe=replace(job.recipe, steps=110)) for job in (TINY, deeper)]
    told: dict[int, list[int]] = {0: [], 1: []}
    together = train_all(jobs, workers=2, on_progress=lambda job, step, loss: told[job].append(step))
    assert told == {0: [100, 110], 1: [100, 110]}
    assert all(same(one, train_job(job, device="cpu")) for one, job in zip(together, jobs, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_not_finite_is_an_error(workers: int) -> None:
    wild = TINY._replace(prior=replace(PRIOR, atoms=1e30 * PRIOR.atoms))
    endless = TINY._replace(recipe=replace(TINY.recipe, steps=10**7))
    jobs = [wild] if workers == 1 else [wild, endless]
    with pytest.raises(FloatingPointError, match=r"step 100 of 250; try a learning rate below 0\.01"):
        train_all(jobs, workers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixing": np.ones((1, 8))}, "rows of mixing must sum to 1"),
        ({"mixing": np.full((2, 8), 1 / 8)}, "1 row or as many as the 8 tokens"),
        ({"prior": gaussian(4)}, "architecture has dim 3, the prior 4"),
        ({"channel": Channel(channels=2)}, "architecture has 1 heads, the channel 2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_all([TINY._replace(**change)])


@pytest.mark.parametrize(
    "change",
    [
        {"prior": replace(PRIOR, atoms=PRIOR.atoms + 1e-12)},
        {"prior": replace(PRIOR, weights=np.array([0.3, 0.2, 0.3, 0.2]))},
        {"prior": replace(PRIOR, factor=np.eye(3))},
        {"label_noise": 0.2},
        {"channel": replace(TINY.channel, bits=15)},
        {"mixing": np.eye(8)},
        {"architecture": replace(TINY.architecture, width=9)},
        {"recipe": replace(TINY.recipe, seed=1)},
    ],
)
def test_the_cache_key_hangs_on_each_ingredient(change: dict[str, Any]) -> None:
    assert cache_key(TINY) == cache_key(TINY)
    assert cache_key(TINY._replace(**change)) != cache_key(TINY)


@pytest.mark.parametrize(
    ("name", "other"), [("torch.__version__", "0"), ("runner.training.job.TRAINING_VERSION", 0)]
)
def test_the_cache_key_hangs_on_torch_and_on_the_version_of_training(
    name: str, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache_key(TINY)
    monkeypatch.setattr(name, other)
    assert cache_key(TINY) != before


def test_the_text_of_the_source_changes_no_cache_key(tmp_path: Path) -> None:
    """Half an hour of training is not thrown away for a better docstring."""
    program = "from runner.training.job import cache_key; from tests.golden import TRAININGS as jobs; "
    program += "print(cache_key(jobs['looped']))"
    for package in ("agents", "topology", "runner", "analysis", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [path for package in ("agents", "runner") for path in (tmp_path / package).rglob("*.py")]:
        path.write_text(path.read_text() + "\n# a comment that says more\n")
    command = [sys.executable, "-c", program]
    found = [
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        for folder in (ROOT, tmp_path)
    ]
    assert found[0] == found[1] != ""


def test_weights_come_back_from_the_cache(tmp_path: Path) -> None:
    folder, short = tmp_path / "weights", TINY._replace(recipe=replace(TINY.recipe, steps=3))
    assert load(folder, short) is None
    trained = train_job(short, device="cpu")
    path = save(folder, trained)
    found = load(folder, short)
    assert found is not None and same(found, trained)
    assert (found.losses, found.seconds) == (trained.losses, trained.seconds)
    assert list(folder.iterdir()) == [path]


def test_scoring_leaves_the_callers_model_as_it_is() -> None:
    built = build(Experiment().with_values({"policy.kind": "learned", "run.rounds": 1, "task.tokens": 4}))
    model = Transformer(Architecture(dim=7, layers=1)).train()
    forward_on_prompts(model, built, range(3))
    last_risks([model], built, range(3), torch.float64)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model.training


@pytest.mark.gpu
def test_an_accelerator_trains_too() -> None:
    trained = train_job(TINY, device="cuda")
    assert trained.losses[-1][1] < 0.5
