"""Priors over the latent task vector w."""

from agents.prior.base import Latent, Prior, draw_latent
from agents.prior.gaussian import gaussian, matched_gaussian
from agents.prior.tree import amplitudes, axes_needed, tree

__all__ = [
    "Latent",
    "Prior",
    "amplitudes",
    "axes_needed",
    "draw_latent",
    "gaussian",
    "matched_gaussian",
    "tree",
]
