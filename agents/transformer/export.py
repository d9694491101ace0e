"""Export of a trained transformer to the policy that message-passing agents run."""

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from agents.policies import learned
from agents.policies.learned import Learned
from agents.transformer.model import Transformer


def export(model: Transformer) -> Learned:
    """The trained weights as a policy that tokens run by passing messages, in double precision.

    Source: THEORY.md section 8, two systems, one computation.
    """
    layers = tuple(
        learned.Layer(
            query=_weights(layer.query),
            emission=_weights(layer.emission),
            update=tuple(_weights(part) for part in layer.update if isinstance(part, nn.Linear)),
        )
        for layer in model.rounds()
    )
    sizes = model.sizes
    return Learned(_double(model.start), layers, _double(model.readout), sizes.heads, sizes.control_variate)


def _weights(layer: nn.Linear) -> learned.Affine:
    return learned.Affine(_double(layer.weight), _double(layer.bias))


def _double(tensor: Tensor) -> Float[np.ndarray, "..."]:
    return tensor.detach().cpu().double().numpy().copy()
