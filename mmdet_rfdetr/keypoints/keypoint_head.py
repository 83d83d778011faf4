"""Keypoints: tokens beside every query, which become points of the class there."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from rfdetr_datasets.points import names_and_lines
from torch import Tensor, nn

from ..errors import SettingError
from ..matching import Matches, Stages, Targets
from ..models.query_selection import GroupLinear
from ..models.relu_mlp import ReLUMLP
from ..models.task_head import Features, ModelSizes, TaskHead
from ..ops.transfer import upload
from .point_decoder import PointDecoder, PointInitialiser, PointStream
from .point_losses import CHANNELS, TERMS, TargetPoints, add_point_costs, point_losses
from .point_results import RESULTS, decode_points, fuse_scores, in_order
from .schema import Schema

SCORE_MODES = ('class', 'fused')


@MODELS.register_module()
class RFDETRKeypointHead(TaskHead):
    """Keypoints of every query.

    A token for each point runs through the decoder beside its query and reads a
    projector of its own. Of a slot there are eight numbers: x and y relative to the
    image, the logits of being labelled and of being seen, ``log l11``, ``l21`` and
    ``log l22`` of the precision (see :mod:`.point_losses`), and what the point adds to
    the logit of its class.

    Args:
        sizes: of the model.
        num_keypoints: points of each class in the order of labels; labels beyond have
            none.
        l1_weight: weight of the distance, in the loss and in the matching.
        findable_weight: of whether a point is labelled, likewise.
        visible_weight: of whether it is seen, likewise.
        nll_weight: of how likely the true point is, likewise.
        score_mode: ``'class'`` scores detections by their class, ``'fused'`` by that
            and the uncertainty of their points, as the official package does.
        score_alpha: how much uncertainty counts in fused scores.
        official_labels: an object with a label that ``num_keypoints`` lacks turns the
            losses of points off for its whole batch, as in the official package;
            otherwise it has none itself.
        init_cfg: mmengine's initialisation config.

    Raises:
        SettingError: if a setting is not one of these.
    """

    name = 'keypoint_head'
    exported = 'keypoints'
    exported_results = RESULTS

    def __init__(
        self,
        *,
        sizes: ModelSizes,
        num_keypoints: Sequence[int] = (17,),
        l1_weight: float = 1.0,
        findable_weight: float = 1.0,
        visible_weight: float = 1.0,
        nll_weight: float = 1.0,
        score_mode: str = 'class',
        score_alpha: float = 0.2,
        official_labels: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(sizes=sizes, init_cfg=init_cfg)
        if score_mode not in SCORE_MODES:
            raise SettingError(
                f'model.keypoint_head.score_mode={score_mode!r}: choose one of '
                f'{SCORE_MODES}'
            )
        self.schema = Schema.from_setting(num_keypoints, sizes.num_classes)
        weights = l1_weight, findable_weight, visible_weight, nll_weight
        self.weights = dict(zip(TERMS, weights, strict=True))
        self.score_mode = score_mode
        self.score_alpha = score_alpha
        self.official_labels = official_labels
        width, total = sizes.embed_dims, self.schema.total
        widths = width, width, CHANNELS
        layer = dict(sizes.decoder, num_layers=sizes.num_layers)
        layer.pop('feedforward_channels', None)
        self.neck = MODELS.build(sizes.neck)
        self.decoder = PointDecoder(schema=self.schema, **layer)
        self.initialiser = PointInitialiser(width, total)
        self.encoder_initialiser = PointInitialiser(width, total)
        self.embed = ReLUMLP(nn.Linear(width, out) for out in widths)
        nn.init.zeros_(self.embed[-1].weight)
        nn.init.zeros_(self.embed[-1].bias)
        self.encoder_embed = ReLUMLP(
            GroupLinear(sizes.num_groups, width, out) for out in widths
        )
        for of_groups, of_layers in zip(self.encoder_embed, self.embed, strict=True):
            of_groups.copy_to_all_groups(of_layers)
        self.register_buffer('active', self.schema.active())

    @torch.no_grad()
    def reset_precision(self) -> None:
        """Give all points unit precision, and leave what else is known of them."""
        for last in (self.embed[-1], self.encoder_embed[-1]):
            last.weight[..., 4:7, :] = 0
            last.bias[..., 4:7] = 0

    def stream(self, maps: Sequence[Tensor]) -> PointStream:
        """The points of a batch, which read the levels of a neck of their own."""
        return PointStream(self.decoder, self.initialiser, self.neck(maps))

    def forward(self, stages: Stages, features: Features) -> Stages:
        """Add the points of every stage, and what they add to its class logits."""
        states = features.streams[self.name].states[-len(features.hidden_states) :]
        made = [self._place(self.embed(x), features.references) for x in states]
        if features.tokens is not None:
            points = self.encoder_initialiser(features.tokens)
            images, queries, count, width = points.shape
            rows = points.view(images, stages.num_groups, -1, width).transpose(0, 1)
            deltas = self.encoder_embed(rows.flatten(1, 2))
            deltas = deltas.view(stages.num_groups, images, -1, count, CHANNELS)
            deltas = deltas.transpose(0, 1).flatten(1, 2)
            # The box is not detached here: it learns from the points.
            made.append(self._place(deltas, stages.stage_boxes[-1]))
        logits = [
            stage_logits + self._class_logits(points)
            for stage_logits, points in zip(stages.stage_logits, made, strict=True)
        ]
        return stages.with_logits(logits).with_task(self.name, made)

    def _place(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Points (B, N, Kt, 8) relative to boxes (B, N, 4) as slots, float32."""
        deltas = deltas.float().nan_to_num(0.0, 0.0, 0.0)
        boxes = boxes[:, :, None]
        xy = deltas[..., :2] * boxes[..., 2:] + boxes[..., :2]
        points = torch.cat((xy, deltas[..., 2:]), dim=-1)
        if self.schema.total == self.schema.slots:
            return points
        parts = points.split(self.schema.counts, dim=2)
        most = self.schema.most
        return torch.cat(
            [F.pad(part, (0, 0, 0, most - part.shape[2])) for part in parts], dim=2
        )

    def _class_logits(self, points: Tensor) -> Tensor:
        """What points (B, N, S * Kmax, 8) add to the logits (B, N, K)."""
        added = points[..., 7].unflatten(2, self.active.shape).sum(-1)
        return F.pad(added, (0, self.sizes.num_classes - added.shape[-1]))

    def outputs(self, stages: Stages, stage: int) -> dict[str, Tensor]:
        """``pred_keypoints`` (B, N, S * Kmax, 8) raw."""
        return dict(pred_keypoints=stages.tasks[self.name][stage])

    def get_targets(
        self, batch_gt_instances: InstanceList, batch_img_metas: list[dict]
    ) -> TargetPoints:
        """Join the points of all images, relative to these.

        Raises:
            SettingError: if the pipeline has not loaded any.
        """
        device, most = self.active.device, self.schema.most
        points = []
        for instances, meta in zip(batch_gt_instances, batch_img_metas, strict=True):
            if 'keypoints' not in instances or 'keypoints_visible' not in instances:
                raise SettingError(
                    f'{meta.get("img_path", "an image")} has no gt_instances.keypoints '
                    'and keypoints_visible, which keypoint_head learns from: load them '
                    'with RFDETRLoadKeypoints, or set model.keypoint_head=None'
                )
            self.schema.check_data(meta.get('num_keypoints'))
            size = upload([meta['img_shape'][1::-1]], device, torch.float32)
            xy = torch.as_tensor(instances.keypoints, device=device).float() / size
            visibility = torch.as_tensor(instances.keypoints_visible, device=device)
            of_image = torch.cat((xy, visibility[..., None].float()), dim=-1)[:, :most]
            points.append(F.pad(of_image, (0, 0, 0, most - of_image.shape[1])))
        points = torch.cat(points)
        return TargetPoints(points[..., :2], points[..., 2])

    def add_costs(
        self, costs: Tensor, stages: Stages, targets: Targets, objects: Tensor
    ) -> None:
        """Add the costs of the points; see :mod:`.point_losses`."""
        if not objects.numel():
            return
        index = objects.flatten()
        add_point_costs(
            costs,
            torch.cat(tuple(stages.tasks[self.name]), 1).unflatten(
                2, self.active.shape
            ),
            TargetPoints(*(x[index] for x in targets.tasks[self.name])),
            targets.boxes[index, 2:].prod(-1),
            targets.labels[objects],
            self.active,
            self.weights,
        )

    def loss(
        self, stages: Stages, targets: Targets, matches: Matches
    ) -> dict[str, Tensor]:
        """Sum ``loss_kpt_l1``, ``_findable``, ``_visible`` and ``_nll`` by stage."""
        points = torch.cat(tuple(stages.tasks[self.name]), dim=1)
        points = points[matches.images, matches.rows]
        labels = targets.labels[matches.targets]
        points, active, known = self._of_class(points, labels)
        losses = point_losses(
            points,
            TargetPoints(*(x[matches.targets] for x in targets.tasks[self.name])),
            targets.boxes[matches.targets, 2:].prod(-1),
            active,
        )
        sums = {
            f'loss_kpt_{name}': self.weights[name] * matches.sum_by_stage(values)
            for name, values in losses.items()
        }
        if self.official_labels:
            off = matches.sum_by_stage((~known).float()) > 0
            sums = {name: values.masked_fill(off, 0) for name, values in sums.items()}
        return sums

    def _of_class(
        self, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points (..., Kmax, 8) of classes (...) among all slots.

        Returns:
            Tuple of them, which of them the class owns, and whether the schema has it.
        """
        classes = len(self.schema.counts)
        known, labels = labels < classes, labels.clamp(max=classes - 1)
        points = points.unflatten(-2, self.active.shape)
        # Expanded by hand: take_along_dim makes the batch of a graph a constant.
        index = labels[..., None, None, None]
        index = index.expand(*labels.shape, 1, *points.shape[-2:])
        points = points.gather(-3, index).squeeze(-3)
        return points, self.active[labels] & known[..., None], known

    def add_results(
        self,
        instances: InstanceData,
        made: Tensor,
        image: int,
        queries: Tensor,
        img_meta: dict,
        *,
        rescale: bool,
    ) -> Tensor | None:
        """Add ``keypoints``, ``keypoint_scores``, ``keypoint_covariances`` in pixels.

        With ``score_mode='fused'`` scores change, and the order with them.
        """
        points, active, known = self._of_class(made[image, queries], instances.labels)
        size = upload([img_meta['img_shape'][1::-1]], made.device, torch.float32)
        if rescale:
            factors = img_meta['scale_factor'][:2]
            size = size / upload([factors], made.device, torch.float32)
        sides = (instances.bboxes[:, 2:] - instances.bboxes[:, :2]) / size
        decoded = decode_points(points, active, size, sides.prod(-1))
        instances.keypoints, instances.keypoint_scores = decoded[:2]
        instances.keypoint_covariances = decoded[2]
        if self.score_mode == 'class':
            return None
        instances.scores = fuse_scores(
            instances.scores, points, active, known, self.score_alpha
        )
        return instances.scores.argsort(descending=True, stable=True)

    def finish(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add points as parts of the sides, as :meth:`add_results` does in pixels."""
        points, active, known = self._of_class(found['keypoints'], found['labels'])
        sides = found['boxes'][..., 2:] - found['boxes'][..., :2]
        made = decode_points(points, active, torch.ones_like(sides), sides.prod(-1))
        found = dict(found, **dict(zip(RESULTS, made, strict=True)))
        if self.score_mode == 'class':
            return found
        fused = fuse_scores(found['scores'], points, active, known, self.score_alpha)
        return in_order(found, fused)

    def describe(self, dataset_meta: dict) -> dict[str, Any]:
        """The task, and what is said of the points in an exported file."""
        names, lines = names_and_lines(dataset_meta, self.schema.most)
        points = dict(names=names, skeleton=lines, counts=list(self.schema.counts))
        points.update(score_mode=self.score_mode, alpha=self.score_alpha)
        return dict(task='pose', keypoints=points)
