"""Transformers whose tokens may tell each other everything: what the bound on a message costs."""

from runner.unconstrained.design import KINDS, Design, Job, Kind, design_for, job_of
from runner.unconstrained.models import trained_unconstrained
from runner.unconstrained.pool import train_all
from runner.unconstrained.risk import risk_on_prompts
from runner.unconstrained.training import Trained, train

__all__ = [
    "KINDS",
    "Design",
    "Job",
    "Kind",
    "Trained",
    "design_for",
    "job_of",
    "risk_on_prompts",
    "train",
    "train_all",
    "trained_unconstrained",
]
