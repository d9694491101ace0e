"""What the exact law of a field costs beside the Gaussian one: whole runs of one token's belief."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
from rich.table import Table

from agents.channel import Field
from agents.codebook import principal
from agents.inference.base import Inference
from agents.inference.exact import ExactInference
from agents.inference.gaussian import GaussianInference
from agents.policies.adaptive import widest
from agents.prior import tree

_PROMPTS = 64


def run_of(inference: Inference, tokens: int, rounds: int) -> Callable[[], None]:
    """A belief that asks the widest code, hears, and estimates, for some rounds."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rounds, tokens, 1, _PROMPTS)) * 0.4
    effective = np.full((tokens, 1, _PROMPTS), 32.0)

    def play() -> None:
        belief = inference.start(tokens, _PROMPTS)
        for round in range(1, rounds + 1):
            codes = widest(inference.variances(belief), 1)
            control = inference.estimate(belief)
            field = Field(codes, values[round - 1], effective, effective[:, 0])
            belief = inference.hear(belief, field, control, round)
        inference.estimate(belief)

    return play


def measure(repeats: int) -> Table:
    """Ratios to the joint Gaussian law, median of alternating runs."""
    prior = tree(3, 2, 0.8, 7)
    rule = (prior, principal(prior), 0.1, 1.0)
    laws: dict[str, Inference] = {
        "Gaussian, joint": GaussianInference(*rule),
        "exact, rounds independent": ExactInference(*rule),
        "exact, grouped": ExactInference(*rule, grouped=True),
    }
    table = Table("law", "tokens", "rounds", "ms a run", "ratio", title="belief, 64 prompts, 8 atoms")
    for tokens, rounds in ((1, 4), (1, 10), (64, 4), (64, 10)):
        plays = {name: run_of(law, tokens, rounds) for name, law in laws.items()}
        taken: dict[str, list[float]] = {name: [] for name in plays}
        for _ in range(repeats):
            for name, play in plays.items():
                began = perf_counter()
                play()
                taken[name].append(perf_counter() - began)
        base = taken["Gaussian, joint"]
        for name, times in taken.items():
            ratio = median(mine / theirs for mine, theirs in zip(times, base, strict=True))
            table.add_row(name, str(tokens), str(rounds), f"{1e3 * median(times):.1f}", f"{ratio:.2f}")
    return table
