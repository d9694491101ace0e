"""Priors over the latent task vector w; a new kind is a module here and an entry in `PRIORS`."""

from agents.prior.base import Latent, Prior, PriorEntry, PriorOptions, draw_latent
from agents.prior.gaussian import GAUSSIAN, MATCHED_GAUSSIAN, gaussian, matched_gaussian
from agents.prior.tree import TREE, amplitudes, axes_needed, tree

PRIORS: dict[str, PriorEntry] = {
    "tree": TREE,
    "gaussian": GAUSSIAN,
    "matched_gaussian": MATCHED_GAUSSIAN,
}

__all__ = [
    "PRIORS",
    "Latent",
    "Prior",
    "PriorEntry",
    "PriorOptions",
    "amplitudes",
    "axes_needed",
    "draw_latent",
    "gaussian",
    "matched_gaussian",
    "tree",
]
