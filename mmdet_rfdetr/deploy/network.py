"""The part of a detector that a deployment file holds."""

import copy

import torch
from torch import Tensor, nn

from ..precision import PrecisionPolicy
from .rewritten import constant, rewrite


class DeployedNetwork(nn.Module):
    """A copy of a detector from normalised images to the outputs of its last layer.

    What a graph cannot hold, or need not compute for every image, is done here once:
    adapters are merged, and the position table has the size that the images have. The
    copy is on the CPU, in float32 and in evaluation mode; the model stays as it is.

    Args:
        model: an ``RFDETR``, not one that was switched to deploy.
        image_size: (H, W) of the images.

    Attributes:
        output_names: names of the outputs, in their order.
        heads: task heads that have an output.
    """

    def __init__(self, model: nn.Module, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.eval()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.model.precision = PrecisionPolicy()
        heads = self.model.bbox_head.task_heads.values()
        self.heads = [head for head in heads if head.exported]
        self.output_names = ('dets', 'labels', *(each.exported for each in self.heads))
        rewrite(self.model)
        _settle_positions(self.model.backbone, image_size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network.

        Args:
            images: (B, 3, H, W) float32, normalised.

        Returns:
            Tuple of ``dets`` (B, Q, 4) cxcywh relative to the image, not clipped,
            ``labels`` (B, Q, K) raw logits and those of task heads, (B, Q, ...).
        """
        stages = self.model._stages(images, None, last_only=True)
        outputs = [stages.stage_boxes[0], stages.stage_logits[0]]
        for head in self.heads:
            outputs.append(head.outputs(stages, 0)[f'pred_{head.exported}'])
        return tuple(outputs)


def _settle_positions(backbone: nn.Module, image_size: tuple[int, int]) -> None:
    """Resize the position table once; runtimes differ in how they would resize it."""
    if not hasattr(backbone, 'position_table'):
        return
    grid = tuple(side // backbone.patch_size for side in image_size)
    backbone.pos_embed = constant(backbone.position_table(grid))
    backbone.position_table = lambda grid: backbone.pos_embed
