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
from ..matching.assigner import Targets
from ..ops.boxes import apply_deltas, cxcywh_to_xyxy, paired_iou, xyxy_to_cxcywh
from ..ops.transfer import upload
from ..precision import float32_island
from ..segmentation.mask_results import full_size_masks
from ..segmentation.point_sampling import MaskFeatures, TargetMasks
from .detections import Detections, best_detections, box_scales
from .labels import join_labels
from .log_figures import prediction_errors
from .part_checks import check_losses
from .query_selection import CLASS_PRIOR
from .relu_mlp import ReLUMLP

TEST_CFG_KEYS = ('max_per_img', 'score_thr')


def stage_prefixes(num_layers: int) -> list[str]:
    """Prefixes of the loss names: decoder layers in order, then the encoder."""
    return [f'd{layer}.' for layer in range(num_layers - 1)] + ['', 'enc_']


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
        loss_mask: :class:`mmdet_rfdetr.losses.RFDETRPointMaskLoss`, for a model with
            a mask head.
        train_cfg: ``assigner``, the matching; needed for the loss only.
        test_cfg: ``max_per_img`` (required) detections an image and, to drop weak
            ones, ``score_thr``.
        init_cfg: mmengine's initialisation config.

    Attributes:
        errors: of the last call of ``loss``, for the log: ``class_error`` and for each
            stage ``cardinality_error``, see :func:`prediction_errors`. They are kept
            apart from the terms, whose sum is the loss.

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
        loss_mask: dict | None = None,
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
        self.loss_mask = None if loss_mask is None else MODELS.build(loss_mask)
        self.errors: dict[str, Tensor] = {}

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
        deltas = self.fc_reg(hidden_states)
        boxes = apply_deltas(deltas, references, in_place=not torch.is_grad_enabled())
        return self.fc_cls(hidden_states).float(), boxes

    def loss(
        self,
        hidden_states: Tensor,
        references: Tensor,
        enc_outputs_class: Tensor,
        enc_outputs_coord: Tensor,
        num_groups: int,
        batch_data_samples: SampleList,
        mask_preds: list[MaskFeatures] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss terms of a batch.

        Args:
            hidden_states: (layers, B, N, D).
            references: (B, N, 4) cxcywh.
            enc_outputs_class: (B, N_enc, K) raw logits of the selected tokens.
            enc_outputs_coord: (B, N_enc, 4) their boxes, cxcywh.
            num_groups: G groups along the query axes.
            batch_data_samples: samples with ``gt_instances``.
            mask_preds: masks of each layer and of the encoder, if the model has
                a mask head.

        Returns:
            Weighted terms: ``loss_cls``, ``loss_bbox``, ``loss_iou`` (and with
            masks ``loss_mask``, ``loss_dice``) of the last layer, with prefix
            ``d0.`` and so on of the others, with ``enc_`` of the encoder.
        """
        return self.loss_by_feat(
            *self(hidden_states, references),
            enc_outputs_class,
            enc_outputs_coord,
            batch_gt_instances=[s.gt_instances for s in batch_data_samples],
            batch_img_metas=[s.metainfo for s in batch_data_samples],
            num_groups=num_groups,
            mask_preds=mask_preds,
        )

    @float32_island()
    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Tensor,
        enc_bbox_preds: Tensor,
        *,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        num_groups: int,
        mask_preds: list[MaskFeatures] | None = None,
    ) -> dict[str, Tensor]:
        """Match and compute the loss terms of all stages together.

        Args:
            all_layers_cls_scores: (layers, B, N, K) raw logits.
            all_layers_bbox_preds: (layers, B, N, 4) cxcywh.
            enc_cls_scores: (B, N_enc, K) raw logits.
            enc_bbox_preds: (B, N_enc, 4) cxcywh.
            batch_gt_instances: ``labels``, absolute xyxy ``bboxes`` and, if
                needed, ``masks``.
            batch_img_metas: with ``img_shape``; masks need ``batch_input_shape`` if
                there is padding.
            num_groups: G groups along the query axes.
            mask_preds: masks of each layer and of the encoder.

        Returns:
            See :meth:`loss`.
        """
        return self.loss_of_targets(
            all_layers_cls_scores,
            all_layers_bbox_preds,
            enc_cls_scores,
            enc_bbox_preds,
            targets=self.get_targets(batch_gt_instances, batch_img_metas),
            num_groups=num_groups,
            mask_preds=mask_preds,
        )

    @float32_island()
    def loss_of_targets(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Tensor,
        enc_bbox_preds: Tensor,
        *,
        targets: Targets,
        num_groups: int,
        mask_preds: list[MaskFeatures] | None = None,
    ) -> dict[str, Tensor]:
        """:meth:`loss_by_feat` of objects that are joined already.

        With padded targets the host reads nothing.

        Args:
            all_layers_cls_scores: see :meth:`loss_by_feat`.
            all_layers_bbox_preds: likewise.
            enc_cls_scores: likewise.
            enc_bbox_preds: likewise.
            targets: the objects of all images.
            num_groups: see :meth:`loss_by_feat`.
            mask_preds: likewise.
        """
        layers = len(all_layers_cls_scores)
        cls_scores = torch.cat((*all_layers_cls_scores, enc_cls_scores), dim=1)
        bbox_preds = torch.cat((*all_layers_bbox_preds, enc_bbox_preds), dim=1)
        stage_sizes = [all_layers_cls_scores.shape[2]] * layers
        stage_sizes.append(enc_cls_scores.shape[1])

        targets = self.assigner.prepare(targets, min(stage_sizes) // num_groups)
        matches = self.assigner.assign(
            cls_scores, bbox_preds, stage_sizes, targets, num_groups, mask_preds
        )
        if targets.valid is None:
            total = bbox_preds.new_full((), num_groups * sum(targets.counts))
        else:
            total = num_groups * targets.valid.sum().float()
        # Processes need not validate equally many batches; each divides by its own.
        avg_factor = (reduce_mean(total) if self.training else total).clamp_(min=1)

        boxes = bbox_preds[matches.images, matches.rows]
        target_boxes = targets.boxes[matches.targets]
        labels = targets.labels[matches.targets]
        corners, target_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes)
        terms = dict(
            loss_cls=self.loss_cls(
                cls_scores,
                matches,
                labels,
                paired_iou(corners.detach(), target_corners),
            ),
            loss_bbox=self._box_term(self.loss_bbox, boxes, target_boxes, matches),
            loss_iou=self._box_term(self.loss_iou, corners, target_corners, matches),
        )
        if mask_preds is not None:
            terms.update(self.loss_mask(mask_preds, targets.masks, matches))
        losses = {}
        prefixes = stage_prefixes(layers)
        for name, sums in terms.items():
            for prefix, value in zip(prefixes, sums / avg_factor, strict=True):
                losses[prefix + name] = value
        self.errors = prediction_errors(cls_scores, labels, matches, targets, prefixes)
        return losses

    @staticmethod
    def _box_term(loss: nn.Module, boxes: Tensor, targets: Tensor, matches) -> Tensor:
        """Sum an mmdet box loss over the pairs of each stage: (stages,)."""
        if not len(boxes):
            # mmdet's losses of nothing lose their shape; this stays connected.
            return matches.sum_by_stage(boxes.sum(-1))
        pairs = loss(boxes, targets, reduction_override='none')
        if pairs.shape[:1] != boxes.shape[:1]:
            raise SettingError(
                f'{type(loss).__name__} gives {tuple(pairs.shape)} for {len(boxes)} '
                'pairs of boxes: let it return the loss of each pair when it is called '
                "with reduction_override='none', as the losses of MMDetection do."
            )
        return matches.sum_by_stage(pairs.view(len(boxes), -1).sum(-1))

    def get_targets(
        self, batch_gt_instances: InstanceList, batch_img_metas: list[dict]
    ) -> Targets:
        """Join the objects of all images, boxes normalised by ``img_shape``."""
        masks = None
        if self.loss_mask is not None:
            masks = TargetMasks.from_instances(
                batch_gt_instances, batch_img_metas, self.fc_cls.weight.device
            )
        boxes = torch.cat([gt.bboxes for gt in batch_gt_instances])
        counts = tuple(len(gt) for gt in batch_gt_instances)
        sizes = [
            meta['img_shape'][1::-1] * 2
            for meta, count in zip(batch_img_metas, counts, strict=True)
            for _ in range(count)
        ]
        sizes = upload(sizes, boxes.device, boxes.dtype).view(-1, 4)
        return Targets(
            labels=join_labels(batch_gt_instances, batch_img_metas, self.num_classes),
            boxes=xyxy_to_cxcywh(boxes / sizes).float(),
            counts=counts,
            masks=masks,
        )

    def predict(
        self,
        hidden_states: Tensor,
        references: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
        mask_preds: MaskFeatures | None = None,
    ) -> InstanceList:
        """Detect the objects of a batch by the last layer.

        Args:
            hidden_states: (layers, B, Q, D); only the last layer is used.
            references: (B, Q, 4) cxcywh.
            batch_data_samples: samples with ``img_shape`` and, for ``rescale``,
                ``scale_factor``.
            rescale: give boxes and masks in pixels of the original image.
            mask_preds: masks of the last layer, if the model has a mask head.

        Returns:
            See :meth:`predict_by_feat`.
        """
        cls_scores, bbox_preds = self(hidden_states[-1:], references)
        return self.predict_by_feat(
            cls_scores[0],
            bbox_preds[0],
            batch_img_metas=[s.metainfo for s in batch_data_samples],
            rescale=rescale,
            mask_preds=mask_preds,
        )

    def loss_and_predict(
        self,
        hidden_states: Tensor,
        references: Tensor,
        enc_outputs_class: Tensor,
        enc_outputs_coord: Tensor,
        num_groups: int,
        batch_data_samples: SampleList,
        rescale: bool = False,
        mask_preds: list[MaskFeatures] | None = None,
    ) -> tuple[dict[str, Tensor], InstanceList]:
        """Compute losses and the detections of the first group in one pass.

        Arguments are those of :meth:`loss` and :meth:`predict`.
        """
        losses = self.loss(
            hidden_states,
            references,
            enc_outputs_class,
            enc_outputs_coord,
            num_groups,
            batch_data_samples,
            mask_preds,
        )
        queries = hidden_states.shape[2] // num_groups
        last_masks = None
        if mask_preds is not None:
            last_masks = mask_preds[-2].first_queries(queries)
        predictions = self.predict(
            hidden_states[:, :, :queries],
            references[:, :queries],
            batch_data_samples,
            rescale=rescale,
            mask_preds=last_masks,
        )
        return losses, predictions

    @float32_island()
    def predict_by_feat(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        *,
        batch_img_metas: list[dict],
        rescale: bool = True,
        mask_preds: MaskFeatures | None = None,
    ) -> InstanceList:
        """Turn raw outputs into detections, without suppression of overlaps.

        The best ``max_per_img`` pairs of query and class are taken, so a query may
        give several detections. Equal scores are ordered by query and class.

        Args:
            cls_scores: (B, Q, K) raw logits.
            bbox_preds: (B, Q, 4) cxcywh.
            batch_img_metas: with ``img_shape`` and, for ``rescale``,
                ``scale_factor``; masks need ``batch_input_shape`` if there is
                padding and ``ori_shape`` for ``rescale``.
            rescale: give boxes and masks in pixels of the original image.
            mask_preds: masks of the Q queries.

        Returns:
            For each image ``bboxes`` (n, 4) xyxy in pixels inside the image,
            ``scores`` (n,) descending and ``labels`` (n,). With masks also
            ``masks``, see :func:`full_size_masks`.
        """
        detections = self.detections(
            cls_scores,
            bbox_preds,
            box_scales(batch_img_metas, bbox_preds.device, rescale),
        )
        return self.results(
            detections, batch_img_metas, rescale=rescale, mask_preds=mask_preds
        )

    def detections(
        self, cls_scores: Tensor, bbox_preds: Tensor, scales: Tensor
    ) -> Detections:
        """Take the ``max_per_img`` best pairs; see :func:`best_detections`."""
        return best_detections(
            cls_scores, bbox_preds, scales, count=self.test_cfg['max_per_img']
        )

    def results(
        self,
        detections: Detections,
        batch_img_metas: list[dict],
        *,
        rescale: bool = True,
        mask_preds: MaskFeatures | None = None,
    ) -> InstanceList:
        """Hand out the detections of each image; see :meth:`predict_by_feat`."""
        results = []
        threshold = self.test_cfg.get('score_thr')
        for image, (*values, queries) in enumerate(zip(*detections, strict=True)):
            bboxes, scores, labels = values
            result = InstanceData(bboxes=bboxes, scores=scores, labels=labels)
            if threshold is not None:
                confident = scores > threshold
                result, queries = result[confident], queries[confident]
            if mask_preds is not None:
                result.masks = full_size_masks(
                    mask_preds, image, queries, batch_img_metas[image], rescale=rescale
                )
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
