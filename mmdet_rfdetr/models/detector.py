"""The detector: from images to stages, and from stages to losses and detections."""

from collections.abc import Callable, Sequence

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor, nn

from .. import compat
from ..checkpoints import register_state_dict_adapter
from ..errors import SettingError, check_counts
from ..matching import Stages
from ..ops.boxes import apply_deltas
from ..precision import PrecisionPolicy
from .class_names import complete_names
from .decoder import RFDETRDecoder, TokenStream
from .head import RFDETRHead
from .labels import watch_labels
from .memory import Memory
from .part_checks import count_levels, kind_of
from .query_selection import QuerySelection, proposals_of
from .steps import Steps, as_step
from .task_head import Features, ModelSizes, take_settings

MODEL_KEYS: dict[str, Callable[['RFDETR', object], None]] = {}
"""By a key of ``model``, what a built detector is handed to with the key's value.

A value of None is that of a key which is left out.
"""


@MODELS.register_module()
class RFDETR(Steps, BaseDetector):
    """RF-DETR, the real-time detection transformer.

    A windowed ViT and a projector make the memory. Two-stage selection turns its
    best tokens into reference boxes, around which learned queries read the memory
    in a few decoder layers. In training G independent groups of queries share all
    weights but their own query tables and selection heads; otherwise only the
    first group is used.

    A call has mmdet's arguments and modes, which lead to :meth:`loss`, :meth:`predict`
    and, as ``'tensor'``, to :meth:`_forward`. Each of them enters the precision policy:
    a ``PrecisionError`` says that weights were cast to another dtype, by ``half()`` for
    example, or that an autocast around the model differs from the policy.

    Args:
        backbone: config of the backbone.
        neck: config of the projector.
        decoder: arguments of :class:`RFDETRDecoder`; ``embed_dims`` and
            ``num_levels`` follow from the neck if left out.
        bbox_head: config of the head; ``embed_dims`` likewise.
        num_queries: Q, queries of a group.
        num_groups: G, groups in training.
        precision: ``dict(device_type=..., dtype=...)`` for automatic mixed
            precision in every mode, None for float32.
        train_cfg: see :class:`RFDETRHead`.
        test_cfg: see :class:`RFDETRHead`.
        data_preprocessor: config of the data preprocessor.
        init_cfg: mmengine's initialisation config.
        **task_heads: configs of task heads (:class:`TaskHead`) by their names, which
            end in ``_head``, and values of ``MODEL_KEYS``; None leaves one out.

    Raises:
        SettingError: if sizes or parts do not fit each other.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict,
        decoder: dict,
        bbox_head: dict,
        num_queries: int,
        num_groups: int,
        precision: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
        **task_heads: dict | None,
    ) -> None:
        compat.apply_to_model()
        check_counts(num_queries=num_queries, num_groups=num_groups)
        head = kind_of(bbox_head)
        if head is not None and not issubclass(head, RFDETRHead):
            raise SettingError(
                f'bbox_head.type={head.__name__} is a head of another detector: set '
                'RFDETRHead, or a class of yours that inherits from it'
            )
        if 'out_channels' not in (neck or ()):
            raise SettingError(
                f'neck={neck}: set a neck with out_channels, for example ChannelMapper'
            )
        width = neck['out_channels']
        bbox_head = dict(bbox_head, embed_dims=width)
        train_cfg = dict(train_cfg or {})
        assigner = dict(train_cfg.get('assigner') or {})
        extras = {key: task_heads.pop(key, None) for key in MODEL_KEYS}
        task_heads = take_settings(task_heads, bbox_head, assigner)
        if 'assigner' in train_cfg:
            train_cfg['assigner'] = assigner
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        bbox_head.update(train_cfg=train_cfg, test_cfg=test_cfg)
        self.bbox_head = MODELS.build(bbox_head)
        levels = count_levels(self, width, decoder.get('num_levels'))
        decoder = dict(decoder, embed_dims=width, num_levels=levels)
        self.decoder = RFDETRDecoder(**decoder)
        watch_labels(self.data_preprocessor, self.bbox_head.num_classes)
        self.num_queries = num_queries
        self.num_groups = num_groups
        self.precision = PrecisionPolicy.from_config(precision)
        classes = self.bbox_head.num_classes
        self.query_selection = QuerySelection(
            embed_dims=width, num_classes=classes, num_groups=num_groups
        )
        self.query_selection.copy_heads(self.bbox_head.fc_cls, self.bbox_head.fc_reg)
        self.query_embedding = nn.Parameter(torch.randn(num_groups, num_queries, width))
        self.reference_embedding = nn.Parameter(torch.zeros(num_groups, num_queries, 4))
        layers = self.decoder.num_layers
        sizes = width, layers, num_queries, num_groups, classes
        sizes = ModelSizes(*sizes, neck=neck, decoder=decoder)
        for name, cfg in task_heads.items():
            head = MODELS.build(dict(cfg, sizes=sizes))
            head.check_data(self.data_preprocessor)
            self.add_module(name, head)
            self.bbox_head.task_heads[name] = head
        register_state_dict_adapter(self)
        for key, value in extras.items():
            if value is not None:
                MODEL_KEYS[key](self, value)

    @property
    def dataset_meta(self) -> dict:
        """Names and colours of the classes; set by mmdet's inference functions."""
        # mmdet adds the palette to what it has set, so this is the place for both.
        complete_names(self._dataset_meta, self.bbox_head.num_classes)
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta

    @as_step
    def extract_feat(self, batch_inputs: Tensor) -> Sequence[Tensor]:
        """Compute the levels of the neck; argument and result are mmdet's."""
        return self.neck(self.backbone(batch_inputs))

    @as_step
    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Compute the loss terms; arguments and result are mmdet's."""
        stages = self._stages(batch_inputs, batch_data_samples)
        return self.bbox_head.loss(stages, batch_data_samples)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict]:
        """Sum the loss terms, and put the figures for the log beside them."""
        loss, log_vars = super().parse_losses(losses)
        return loss, {**log_vars, **getattr(losses, 'figures', {})}

    @as_step
    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Detect; arguments and result are mmdet's."""
        stages = self._stages(batch_inputs, batch_data_samples, last_only=True)
        results = self.bbox_head.predict(stages, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    @as_step
    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> dict:
        """Compute the raw outputs.

        Args:
            batch_inputs: (B, 3, H, W), normalised.
            batch_data_samples: one for each image, or None. Where they lack
                ``batch_input_shape``, the images fill the batch.

        Returns:
            Dict of float32 outputs: ``pred_logits`` (B, N, K) raw, ``pred_boxes``
            (B, N, 4) cxcywh normalised to the image, ``aux_outputs`` (the same
            of the layers before the last) and ``enc_outputs`` (of the encoder).
            N is ``num_groups * num_queries`` in training and ``num_queries``
            otherwise. Task heads add outputs of theirs to each of these dicts.
        """
        stages = self._stages(batch_inputs, batch_data_samples)
        outputs = []
        for stage, logits in enumerate(stages.stage_logits):
            of_stage = dict(pred_logits=logits, pred_boxes=stages.stage_boxes[stage])
            for head in self.bbox_head.task_heads.values():
                of_stage.update(head.outputs(stages, stage))
            outputs.append(of_stage)
        # Without layers the encoder's are all there are.
        *auxiliary, last, encoder = outputs if len(outputs) > 1 else outputs * 2
        return dict(last, aux_outputs=auxiliary, enc_outputs=encoder)

    def _stages(
        self, inputs: Tensor, data_samples: OptSampleList, *, last_only: bool = False
    ) -> Stages:
        """Run the network: what it says at all stages, or in its last layer alone."""
        maps = self.backbone(inputs)
        levels = self.neck(maps)
        task_heads = self.bbox_head.task_heads
        streams = {name: head.stream(maps) for name, head in task_heads.items()}
        beside = [stream for stream in streams.values() if stream is not None]
        hidden_states, references, selected = self.forward_transformer(
            levels, data_samples, last_only=last_only, streams=beside
        )
        logits, boxes = map(tuple, self.bbox_head(hidden_states, references))
        last_only = last_only and self.decoder.num_layers > 0
        if not last_only:
            logits = *logits, selected['cls_scores']
            boxes = *boxes, selected['bbox_preds']
        num_groups = references.shape[1] // self.num_queries
        stages = Stages(logits, boxes, num_groups)
        features = Features(
            image_size=tuple(inputs.shape[-2:]),
            maps=maps,
            levels=levels,
            references=references,
            hidden_states=hidden_states,
            num_layers=self.decoder.num_layers,
            tokens=None if last_only else selected['tokens'],
            streams=streams,
        )
        for head in task_heads.values():
            stages = head(stages, features)
        return stages

    @as_step
    def forward_transformer(
        self,
        img_feats: Sequence[Tensor],
        batch_data_samples: OptSampleList = None,
        *,
        last_only: bool = False,
        streams: Sequence[TokenStream] = (),
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Select proposals, place the learned queries on them and run the decoder.

        Args:
            img_feats: L levels (B, D, h_l, w_l).
            batch_data_samples: samples whose ``img_shape`` and ``batch_input_shape``
                tell the padding; without, there is none.
            last_only: leave out the outputs of the layers before the last.
            streams: of task heads, see :meth:`TaskHead.stream`.

        Returns:
            Hidden states (layers or 1, B, N, D), references (B, N, 4) and what
            :class:`QuerySelection` gives.
        """
        memory = Memory.flatten(img_feats, batch_data_samples)
        num_groups = self.num_groups if self.training else 1
        proposals, valid = proposals_of(memory)
        counts = dict(num_groups=num_groups, num_queries=self.num_queries)
        selected = self.query_selection(memory.tokens, proposals, valid, **counts)
        query = self.query_embedding[:num_groups, : self.num_queries].flatten(0, 1)
        query = query.expand(memory.tokens.shape[0], -1, -1)
        deltas = self.reference_embedding[:num_groups, : self.num_queries]
        deltas = deltas.flatten(0, 1)
        references = self._move_proposals(deltas, selected['bbox_preds'].detach())
        inputs = dict(references=references, memory=memory, num_groups=num_groups)
        inputs.update(last_only=last_only, streams=streams)
        hidden_states = self.decoder(query, **inputs)
        return hidden_states, references, selected

    @staticmethod
    def _move_proposals(deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move the proposals by the learned references of the queries.

        With fewer tokens than queries the proposals of all groups fill the first
        rows, and the other queries use their learned reference as a box itself
        (official behaviour).

        Args:
            deltas: (N, 4) learned.
            boxes: (B, at most N, 4) cxcywh.

        Returns:
            (B, N, 4) cxcywh.
        """
        count = boxes.shape[1]
        placed = apply_deltas(deltas[:count], boxes)
        rest = deltas[count:].float().expand(boxes.shape[0], -1, -1)
        return torch.cat((placed, rest), dim=1)
