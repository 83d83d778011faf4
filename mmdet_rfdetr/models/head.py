"""Class and box outputs, the losses of all outputs, and the final detections."""

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList, reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import SettingError, check_counts
from ..losses.pairs import sum_pairs
from ..matching import Stages, Targets
from ..ops.boxes import apply_deltas, cxcywh_to_xyxy, paired_iou, xyxy_to_cxcywh
from ..ops.transfer import upload
from ..precision import float32_island
from .detections import Detections, best_detections, box_scales
from .labels import check_labels
from .log_figures import Losses, prediction_errors
from .part_checks import check_losses
from .query_selection import CLASS_PRIOR
from .relu_mlp import ReLUMLP
from .task_head import TaskHead

TEST_CFG_KEYS = ('max_per_img', 'score_thr')


@MODELS.register_module()
class RFDETRHead(BaseModule):
    """Classification and box regression shared by all decoder layers.

    Args:
        num_classes: K sigmoid outputs; label k is output k, and there is no
            background output.
        embed_dims: width D of the queries.
        loss_cls: a classification loss of :mod:`mmdet_rfdetr.losses`.
        loss_bbox: an mmdet loss of normalised cxcywh boxes.
        loss_iou: an mmdet loss of normalised xyxy boxes.
        train_cfg: ``assigner``, the matching; needed for the loss only.
        test_cfg: ``max_per_img`` (required) detections an image and, to drop weak
            ones, ``score_thr``.
        init_cfg: mmengine's initialisation config.

    Attributes:
        task_heads: by name, those of the detector, whose costs, losses and results
            join those of classes and boxes.

    Raises:
        SettingError: if ``train_cfg`` or ``test_cfg`` has an unknown key, or the
            assigner is not one for this head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int,
        loss_cls: dict,
        loss_bbox: dict,
        loss_iou: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(bbox_head__num_classes=num_classes)
        check_losses(loss_cls, loss_bbox)
        self.num_classes = num_classes
        self.train_cfg = _checked('train_cfg', train_cfg, ('assigner',))
        self.test_cfg = _checked('test_cfg', test_cfg, TEST_CFG_KEYS)
        if 'max_per_img' in self.test_cfg:
            check_counts(test_cfg__max_per_img=self.test_cfg['max_per_img'])
        if 'assigner' in self.train_cfg:
            self.assigner = TASK_UTILS.build(self.train_cfg['assigner'])
            _check_assigner(self.assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        # They are the detector's, which has their parameters.
        self.task_heads: dict[str, TaskHead] = {}

        self.fc_cls = nn.Linear(embed_dims, num_classes)
        self.fc_reg = ReLUMLP(
            nn.Linear(embed_dims, out) for out in (embed_dims, embed_dims, 4)
        )
        nn.init.constant_(self.fc_cls.bias, bias_init_with_prob(CLASS_PRIOR))
        nn.init.zeros_(self.fc_reg[-1].weight)
        nn.init.zeros_(self.fc_reg[-1].bias)

    def forward(
        self, hidden_states: Tensor, references: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the outputs of every layer.

        Args:
            hidden_states: (layers, B, N, D).
            references: (B, N, 4) cxcywh, the same for all layers.

        Returns:
            Tuple of raw logits (layers, B, N, K) and cxcywh boxes
            (layers, B, N, 4), float32.
        """
        boxes = apply_deltas(self.fc_reg(hidden_states), references)
        return self.fc_cls(hidden_states).float(), boxes

    def loss(self, stages: Stages, batch_data_samples: SampleList) -> Losses:
        """Compute the loss terms of a batch.

        Args:
            stages: outputs of all layers and of the encoder.
            batch_data_samples: samples with ``gt_instances``.

        Returns:
            Weighted terms: ``loss_cls``, ``loss_bbox``, ``loss_iou`` (and those of the
            task heads) of the last layer, with prefix ``d0.`` and so on of the others,
            with ``enc_`` of the encoder.
        """
        return self.loss_by_feat(stages, self.get_targets(batch_data_samples))

    @float32_island()
    def loss_by_feat(self, stages: Stages, targets: Targets) -> Losses:
        """Match and compute the loss terms of all stages together.

        With padded targets the host reads nothing.

        Args:
            stages: outputs of all layers and of the encoder.
            targets: the objects of all images.

        Returns:
            See :meth:`loss`.
        """
        queries = min(stages.sizes) // stages.num_groups
        targets = self.assigner.prepare(targets, queries)
        task_heads = self.task_heads.values()
        matches = self.assigner.assign(stages, targets, task_heads)
        total = stages.num_groups * targets.total()
        # Processes need not validate equally many batches; each divides by its own.
        avg_factor = (reduce_mean(total) if self.training else total).clamp_(min=1)

        boxes = stages.boxes[matches.images, matches.rows]
        target_boxes = targets.boxes[matches.targets]
        labels = targets.labels[matches.targets]
        corners, target_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes)
        ious = paired_iou(corners.detach(), target_corners)
        sums = dict(
            loss_cls=self.loss_cls(stages.logits, matches, labels, ious),
            loss_bbox=sum_pairs(self.loss_bbox, boxes, target_boxes, matches),
            loss_iou=sum_pairs(self.loss_iou, corners, target_corners, matches),
        )
        for head in task_heads:
            sums.update(head.loss(stages, targets, matches))
        terms = {}
        for name, of_stages in sums.items():
            values = (of_stages / avg_factor).unbind()
            for prefix, value in zip(stages.prefixes, values, strict=True):
                terms[prefix + name] = value
        return Losses(
            terms,
            figures=prediction_errors(stages, labels, matches, targets),
            non_finite_costs=matches.non_finite,
        )

    def get_targets(self, batch_data_samples: SampleList) -> Targets:
        """Join the objects of all images.

        Args:
            batch_data_samples: samples with ``img_shape`` and, in ``gt_instances``,
                ``labels``, absolute xyxy ``bboxes`` and what the task heads learn;
                these may need ``batch_input_shape`` if there is padding.
        """
        objects = [sample.gt_instances for sample in batch_data_samples]
        metas = [sample.metainfo for sample in batch_data_samples]
        sizes = []
        for gt, meta in zip(objects, metas, strict=True):
            check_labels(gt.labels, meta, self.num_classes)
            sizes += [meta['img_shape'][1::-1] * 2] * len(gt)
        boxes = torch.cat([gt.bboxes for gt in objects])
        sizes = upload(sizes, boxes.device, boxes.dtype).view(-1, 4)
        return Targets(
            labels=torch.cat([gt.labels for gt in objects]),
            boxes=xyxy_to_cxcywh(boxes / sizes).float(),
            counts=tuple(map(len, objects)),
            tasks={
                name: head.get_targets(objects, metas)
                for name, head in self.task_heads.items()
            },
        )

    def predict(
        self, stages: Stages, batch_data_samples: SampleList, rescale: bool = True
    ) -> InstanceList:
        """Detect the objects of a batch by the first group of the last layer.

        Args:
            stages: outputs of the last layer, or of all.
            batch_data_samples: samples with ``img_shape`` and, for ``rescale``,
                ``scale_factor``.
            rescale: give all results in pixels of the original image.

        Returns:
            See :meth:`predict_by_feat`.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(stages, batch_img_metas=metas, rescale=rescale)

    @float32_island()
    def predict_by_feat(
        self, stages: Stages, *, batch_img_metas: list[dict], rescale: bool = True
    ) -> InstanceList:
        """Turn raw outputs into detections, without suppression of overlaps.

        The best ``max_per_img`` pairs of query and class are taken, so a query may
        give several detections. Equal scores are ordered by query and class.

        Args:
            stages: outputs of the last layer, or of all.
            batch_img_metas: with ``img_shape`` and, for ``rescale``,
                ``scale_factor``; task heads may need ``batch_input_shape`` if there is
                padding and ``ori_shape`` for ``rescale``.
            rescale: give all results in pixels of the original image.

        Returns:
            For each image ``bboxes`` (n, 4) xyxy in pixels inside the image,
            ``scores`` (n,) descending and ``labels`` (n,), and what task heads add.
        """
        last = stages.last_layer()
        scales = box_scales(batch_img_metas, self.fc_cls.weight.device, rescale)
        detections = self.detections(last, scales)
        return self.results(detections, last.tasks, batch_img_metas, rescale=rescale)

    def detections(self, last: Stages, scales: Tensor) -> Detections:
        """Take the ``max_per_img`` best pairs; see :func:`best_detections`."""
        count = self.test_cfg['max_per_img']
        (logits,), (boxes,) = last.stage_logits, last.stage_boxes
        return best_detections(logits, boxes, scales, count=count)

    def results(
        self,
        detections: Detections,
        tasks: dict[str, Sequence],
        batch_img_metas: list[dict],
        *,
        rescale: bool = True,
    ) -> InstanceList:
        """Hand out the detections of each image; see :meth:`predict_by_feat`.

        Args:
            detections: of the batch.
            tasks: what each task head made for the last layer, the only stage.
            batch_img_metas: see :meth:`predict_by_feat`.
            rescale: likewise.
        """
        results = []
        threshold = self.test_cfg.get('score_thr')
        for image, meta in enumerate(batch_img_metas):
            bboxes, scores, labels, queries = (x[image] for x in detections)
            result = InstanceData(bboxes=bboxes, scores=scores, labels=labels)
            if threshold is not None:
                confident = ~(scores <= threshold)  # NaN is seen
                result, queries = result[confident], queries[confident]
            for name, (made,) in tasks.items():
                add_results = self.task_heads[name].add_results
                order = add_results(result, made, image, queries, meta, rescale=rescale)
                if order is not None:
                    result, queries = result[order], queries[order]
            results.append(result)
        return results


def _check_assigner(assigner: object) -> None:
    """Refuse an assigner that is not called as this head calls its own."""
    if not hasattr(assigner, 'prepare'):
        raise SettingError(
            f'train_cfg.assigner.type={type(assigner).__name__} matches one image at a '
            'time: set RFDETRHungarianAssigner, which matches all layers, groups and '
            'images in one call, or a class of yours that inherits from it.'
        )


def _checked(name: str, cfg: dict | None, known: Sequence[str]) -> dict:
    """Return ``cfg`` or an empty dict; an unknown key is an error."""
    cfg = cfg or {}
    if unknown := set(cfg) - set(known):
        raise SettingError(
            f'unknown key {sorted(unknown)} in {name}; known are {list(known)}'
        )
    return cfg
