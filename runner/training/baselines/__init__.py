"""Baselines: transformers whose messages are not bounded, so that the cost of the bound can be measured."""

from runner.training.baselines.design import (
    KINDS,
    Baseline,
    BaselineJob,
    Design,
    Kind,
    baseline_job_of,
    design_for,
)
from runner.training.baselines.risk import risk_on_prompts
from runner.training.baselines.trainer import train_baseline, train_baselines

__all__ = [
    "KINDS",
    "Baseline",
    "BaselineJob",
    "Design",
    "Kind",
    "baseline_job_of",
    "design_for",
    "risk_on_prompts",
    "train_baseline",
    "train_baselines",
]
