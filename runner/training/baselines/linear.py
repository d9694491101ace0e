"""Linear self-attention: no softmax, no feedforward block, one trained pair of matrices for each layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_NOISE = 0.1  # of the initial matrices, x 1 / sqrt(d + 1)
_STEP = 0.5  # of gradient descent, which the initial matrices do in each layer but for the noise


class LinearSelfAttention(nn.Module):
    """Layers Z <- Z + (1/N) P Z M (Z' Q Z) on columns (x_i, y_i) and (x_q, 0); the answer is minus the last.

    M = diag(I_N, 0) keeps a query from being heard. P and Q are full. All layers are linear in the
    columns, so Z_l = A_l Z_0 with A_0 = I and

        A_{l+1} = A_l + P_l (A_l G A_l') Q_l A_l,    G = (1/N) sum_i (x_i, y_i)(x_i, y_i)'

    and the answer to x_q is w_L.x_q, where -w_L is the last row of A_L without its last component. Its
    risk over queries x_q ~ N(0, I) is therefore |w - w_L|^2 exactly. Training begins near a small step of
    gradient descent in each layer: from small random matrices one layer often ends in a stationary point
    with twice the least risk, on a tree.

    Source: K. Ahn et al., arXiv:2306.00297, equations (3) to (5); gradient descent in these matrices: J. von
        Oswald et al., arXiv:2212.07677.

    Example:
        >>> model = LinearSelfAttention(3, layers=2, seed=0)
        >>> list(model(torch.randn(5, 4, 3), torch.randn(5, 4)).shape)
        [5, 3]
    """

    def __init__(self, dim: int, layers: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape, scale = (layers, dim + 1, dim + 1), _NOISE / (dim + 1) ** 0.5
        value, match = (scale * torch.randn(shape, generator=generator) for _ in range(2))
        value[:, dim, dim] += 1.0
        match[:, range(dim), range(dim)] -= _STEP
        self.value, self.match = nn.Parameter(value), nn.Parameter(match)  # P and Q of each layer

    def forward(self, inputs: Float[Tensor, "B N d"], labels: Float[Tensor, "B N"]) -> Float[Tensor, "B d"]:
        """w_L, with which the model answers any query by w_L.x_q."""
        columns = torch.cat([inputs, labels[..., None]], -1)  # Z' [B, N, d + 1]
        gram = columns.mT @ columns / columns.shape[1]
        whole = torch.eye(columns.shape[2], dtype=columns.dtype, device=columns.device)
        for value, match in zip(self.value, self.match, strict=True):
            whole = whole + value @ (whole @ gram @ whole.mT) @ match @ whole
        return -whole[:, -1, :-1]

    def loss(
        self, task: Float[Tensor, "B d"], inputs: Float[Tensor, "B N d"], labels: Float[Tensor, "B N"]
    ) -> Float[Tensor, ""]:
        """Mean |w - w_L|^2."""
        return (self(inputs, labels) - task).square().sum(-1).mean()
