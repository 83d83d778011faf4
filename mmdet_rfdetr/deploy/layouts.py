"""What a file takes and gives: the network between an input and named outputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..models.detections import top_scores
from ..ops.boxes import cxcywh_to_xyxy
from .network import DeployedNetwork

BACKGROUND = -20.0
"""Logit of the column behind the classes; readers that know of none drop the last."""
OFFICIAL_CLASSES = 91
"""Classes of the official COCO checkpoints, by raw id; their last column is a class."""


class OfficialLayout(nn.Module):
    """``input`` normalised to ``dets`` cxcywh, ``labels`` logits and raw ones of tasks.

    Names, order, shapes and meaning of the official file (``rfdetr`` 1.11.2): K columns
    of classes, and behind them one of the background.

    Args:
        network: from normalised images to raw outputs.
        num_classes: K.
        **others: what other layouts need.
    """

    input_name = 'input'

    def __init__(self, network: DeployedNetwork, *, num_classes: int, **others) -> None:
        super().__init__()
        self.network = network
        self.output_names = network.output_names
        self.background = None if num_classes == OFFICIAL_CLASSES else num_classes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to (B, Q, 4), (B, Q, K + 1), and (B, Q, ...) of tasks."""
        boxes, logits, *others = self.network(images)
        if self.background is not None:
            logits = F.pad(logits, (0, 1), value=BACKGROUND)
        return boxes, logits, *others


class EndToEndLayout(nn.Module):
    """Final detections: the best pairs of query and class, by descending score.

    Args:
        network: from normalised images to raw outputs.
        num_classes: K.
        count: pairs to take.
        mean: of each channel, (3,).
        std: likewise.
        image_size: (H, W) of the input.

    Attributes:
        takes: outputs of task heads that it has a place for.

    Raises:
        SettingError: it has none for an output of the model.
    """

    input_name = 'input'
    background = None
    takes = ('masks',)

    def __init__(
        self,
        network: DeployedNetwork,
        *,
        num_classes: int,
        count: int,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        left = [
            each.exported for each in network.heads if each.exported not in self.takes
        ]
        if left:
            raise SettingError(
                f'this layout has no place for {left[0]}: take --layout official or '
                'detections'
            )
        self.network = network
        self.num_classes = num_classes
        self.count = count
        self.image_size = image_size
        height, width = image_size
        self.register_buffer('scale', torch.tensor([width, height] * 2).float())
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1))

    def detect(self, images: Tensor) -> dict[str, Tensor]:
        """The best pairs: boxes (B, n, 4) xyxy in [0, 1], scores, labels, of tasks."""
        boxes, logits, *others = self.network(images)
        scores = logits.sigmoid().flatten(1)
        scores, indices = top_scores(scores, self.count)
        queries = torch.div(indices, self.num_classes, rounding_mode='floor')
        labels = indices - queries * self.num_classes
        boxes = cxcywh_to_xyxy(rows_of(boxes, queries)).clamp(min=0, max=1)
        found = dict(boxes=boxes, scores=scores, labels=labels)
        for head, other in zip(self.network.heads, others, strict=True):
            found[head.exported] = rows_of(other, queries)
            found = head.finish(found)
        return found

    def normalise(self, levels: Tensor) -> Tensor:
        """Levels (B, 3, H, W) of 0 to 255 as the network takes them."""
        return (levels - self.mean) / self.std


class DetectionsLayout(EndToEndLayout):
    """``images`` (B, H, W, 3) uint8 to ``boxes``, ``scores``, ``labels``, of tasks."""

    input_name = 'images'
    takes = ('masks', 'keypoints')

    def __init__(self, network: DeployedNetwork, **settings) -> None:
        super().__init__(network, **settings)
        results = (name for head in network.heads for name in head.exported_results)
        self.output_names = ('boxes', 'scores', 'labels', *results)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Boxes and points are parts of the sides; masks are logits (B, n, h, w)."""
        found = self.detect(self.normalise(images.permute(0, 3, 1, 2).float()))
        return tuple(found[name] for name in self.output_names)


class MMDeployLayout(EndToEndLayout):
    """``input`` normalised to mmdeploy's ``dets``, ``labels`` and ``masks``."""

    def __init__(self, network: DeployedNetwork, **settings) -> None:
        super().__init__(network, **settings)
        self.output_names = network.output_names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, n, 5) xyxy in pixels and score, (B, n), (B, n, H, W) probabilities."""
        found = self.detect(images)
        scores = found['scores'][..., None]
        dets = torch.cat((found['boxes'] * self.scale, scores), dim=-1)
        masks = [
            F.interpolate(found[name], size=self.image_size, mode='bilinear').sigmoid()
            for name in self.output_names[2:]
        ]
        return dets, found['labels'], *masks


class DeepStreamLayout(EndToEndLayout):
    """``input`` (B, 3, H, W) levels of 0 to 255 to ``output`` (B, n, 6); no masks."""

    output_names = ('output',)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Rows of x1, y1, x2, y2 in pixels of the input, score and class."""
        found = self.detect(self.normalise(images))
        others = (found[name][..., None].float() for name in ('scores', 'labels'))
        return (torch.cat((found['boxes'] * self.scale, *others), dim=-1),)


def rows_of(output: Tensor, queries: Tensor) -> Tensor:
    """What an output (B, Q, ...) says of queries (B, n)."""
    index = queries.view(*queries.shape, *[1] * (output.dim() - 2))
    return output.gather(1, index.expand(-1, -1, *output.shape[2:]))


LAYOUTS = dict(
    official=OfficialLayout,
    detections=DetectionsLayout,
    mmdeploy=MMDeployLayout,
    deepstream=DeepStreamLayout,
)
"""What a file can look like, by name."""
