"""The small perceptron of all heads."""

from torch import Tensor, nn


class ReLUMLP(nn.ModuleList):
    """Linear layers, or layers of groups, with ReLU between."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out); no ReLU after the last layer."""
        *hidden, last = self
        for layer in hidden:
            x = layer(x).relu()
        return last(x)
