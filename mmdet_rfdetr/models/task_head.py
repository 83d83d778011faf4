"""The seam for tasks: what a model finds out of every query beside class and box."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmdet.registry import MODELS
from mmdet.utils import InstanceList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import SettingError
from ..matching import Matches, Stages, Targets
from .decoder import TokenStream
from .part_checks import kind_of


class ModelSizes(NamedTuple):
    """Sizes of the model that a task head belongs to.

    Attributes:
        embed_dims: width D of levels and queries.
        num_layers: decoder layers.
        num_queries: Q.
        num_groups: G.
        num_classes: K.
        neck: config of the neck.
        decoder: arguments of the decoder.
    """

    embed_dims: int
    num_layers: int
    num_queries: int
    num_groups: int
    num_classes: int
    neck: dict
    decoder: dict


class Features(NamedTuple):
    """What the network knows of a batch when the task heads are called.

    Attributes:
        image_size: (H, W) of the padded input.
        maps: of the backbone, those that the neck gets.
        levels: L maps (B, D, h_l, w_l) of the neck.
        references: (B, N, 4) cxcywh that the boxes of all layers are relative to.
        hidden_states: (layers, B, N, D) of the decoder, of the last layer alone where
            nothing else is asked for.
        num_layers: decoder layers that ran.
        tokens: (B, N_enc, D) that were selected, outputs of the encoder; None where
            the last layer alone is asked for.
        streams: by the name of a task head, its tokens that ran beside the queries, or
            None.
    """

    image_size: tuple[int, int]
    maps: Sequence[Tensor]
    levels: Sequence[Tensor]
    references: Tensor
    hidden_states: Tensor
    num_layers: int
    tokens: Tensor | None
    streams: dict[str, TokenStream | None]


class TaskHead(BaseModule):
    """Base of the heads of tasks: outputs, matching costs, losses and results.

    A model has a task head where its config has the head's name as a key. The head is
    called after the box head; what it makes of every stage travels in ``Stages.tasks``
    and what it is to learn in ``Targets.tasks``, both under its name, and only the head
    itself looks inside. Whatever it makes is tensors, in tuples, lists or dicts if need
    be, so that a batch can be recorded as a CUDA graph.

    Args:
        sizes: of the model; the detector gives them.
        init_cfg: mmengine's initialisation config.

    Attributes:
        name: key of the head in the config of the model, and the beginning of its
            entries in the state dict; it ends in ``_head``.
        bbox_head_keys: arguments of the head that stand in ``bbox_head``.
        assigner_keys: arguments of the head that stand in ``train_cfg.assigner``.
        exported: name of its output in an exported file, that of mode ``'tensor'``
            without ``pred_``; None keeps it out.
        exported_results: names of what its detections have there, in this order.
    """

    name: str
    exported: str | None = None
    exported_results: tuple[str, ...] = ()
    bbox_head_keys: tuple[str, ...] = ()
    assigner_keys: tuple[str, ...] = ()

    def __init__(
        self, *, sizes: ModelSizes, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.sizes = sizes

    def check_data(self, data_preprocessor: nn.Module) -> None:
        """Refuse a data preprocessor whose batches the head cannot learn from.

        Raises:
            SettingError: naming its setting.
        """

    def stream(self, maps: Sequence[Tensor]) -> TokenStream | None:
        """Tokens of the task for the decoder to take along, if it has any.

        They come back in ``features.streams`` of :meth:`forward`.

        Args:
            maps: of the backbone, those that the neck gets.
        """
        return None

    def forward(self, stages: Stages, features: Features) -> Stages:
        """Add the outputs of the head, see :meth:`Stages.with_task`.

        Args:
            stages: logits, boxes, and the outputs of the task heads before this one.
                A head may replace them, for example add to the logits.
            features: where the outputs come from.
        """
        raise NotImplementedError

    def outputs(self, stages: Stages, stage: int) -> dict[str, Tensor | dict]:
        """Outputs of a stage in mode ``'tensor'``, float32, by name."""
        return {}

    def get_targets(
        self, batch_gt_instances: InstanceList, batch_img_metas: list[dict]
    ) -> object:
        """What is to be learned of the T objects of all images.

        Args:
            batch_gt_instances: objects of each image, as transforms made them.
            batch_img_metas: with ``img_shape`` and, where there is padding,
                ``batch_input_shape``.
        """
        raise NotImplementedError

    def add_costs(
        self, costs: Tensor, stages: Stages, targets: Targets, objects: Tensor
    ) -> None:
        """Add the costs of matching by this task; called without gradient.

        Args:
            costs: (B, n, R) float32, changed in place; ``n`` objects of an image.
            stages: outputs of the network.
            targets: the objects.
            objects: (B, n) which of the T objects a row is of; any where an image has
                fewer than ``n``.
        """

    def loss(
        self, stages: Stages, targets: Targets, matches: Matches
    ) -> dict[str, Tensor]:
        """Sum the losses over the matched pairs of each stage.

        Autocast is off inside, while outputs have the precision that the head made
        them in. The sums are divided by the number of objects afterwards.

        Args:
            stages: outputs of the network.
            targets: the objects.
            matches: which query is to learn which object.

        Returns:
            Weighted sums, (stages,) each, by names that begin with ``loss_``.
        """
        raise NotImplementedError

    def add_results(
        self,
        instances: InstanceData,
        made: object,
        image: int,
        queries: Tensor,
        img_meta: dict,
        *,
        rescale: bool,
    ) -> Tensor | None:
        """Complete the detections of an image.

        Args:
            instances: ``bboxes``, ``scores`` and ``labels`` of n detections; changed.
            made: what the head made for the last layer.
            image: index of the image in the batch.
            queries: (n,) query that each detection is of.
            img_meta: of the image.
            rescale: in pixels of the original image, not of the batch.

        Returns:
            None, or (n,) an order that the detections are to be brought into.
        """

    def finish(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete the detections in an exported file, as :meth:`add_results` does.

        Args:
            found: ``boxes`` (B, n, 4) xyxy as parts of the sides, ``scores`` (B, n)
                descending, ``labels`` (B, n), and the head's output of their queries,
                (B, n, ...), under its name.

        Returns:
            The same with ``exported_results``; ``scores`` may be others, and descend.
        """
        return found

    def describe(self, dataset_meta: dict) -> dict[str, Any]:
        """Fields of the metadata of an exported file that the head knows.

        Args:
            dataset_meta: what the data set says of itself.
        """
        return {}


def take_settings(
    task_heads: dict[str, dict | None], bbox_head: dict, assigner: dict
) -> dict[str, dict]:
    """Give each task head its settings that stand in other parts of the config.

    Args:
        task_heads: config of each head by its name, None for one that is left out.
        bbox_head: config of the box head; what belongs to a task leaves it.
        assigner: config of the matching, likewise.

    Returns:
        Config of each head, complete but for ``sizes``.

    Raises:
        TypeError: if a name does not end in ``_head``.
        SettingError: if what a name stands for is not known, or no task head of that
            name; or if there is a loss of a task without its head.
    """
    complete = {}
    for name, cfg in task_heads.items():
        if not name.endswith('_head'):
            raise TypeError(
                f'RFDETR got an unexpected keyword argument {name!r}, which no '
                'installed part of mmdet_rfdetr adds'
            )
        if cfg is not None:
            kind = _kind_of_task_head(name, cfg)
            complete[name] = _take(cfg, kind, bbox_head, assigner)
    for kind in MODELS.module_dict.values():
        if not inspect.isclass(kind) or not issubclass(kind, TaskHead):
            continue
        left = _take({}, kind, bbox_head, assigner)
        for key in kind.bbox_head_keys:
            if left.get(key) is not None:
                raise SettingError(
                    f'{kind.name}=None and bbox_head.{key}={left[key]} do not go '
                    f'together: add model.{kind.name}=dict(type={kind.__name__!r}), or '
                    f'set bbox_head.{key}=None'
                )
    return complete


def _take(cfg: dict, kind: type[TaskHead], bbox_head: dict, assigner: dict) -> dict:
    """Move the settings of a kind of head from two configs to its own."""
    settings = dict(cfg)
    takes = (bbox_head, kind.bbox_head_keys), (assigner, kind.assigner_keys)
    for source, keys in takes:
        settings.update((key, source.pop(key)) for key in keys if key in source)
    return settings


def _kind_of_task_head(name: str, cfg: dict) -> type[TaskHead]:
    """The class of a task head.

    Raises:
        SettingError: if there is none of this name.
    """
    kind = kind_of(cfg) if isinstance(cfg, dict) else None
    if kind is None:
        raise SettingError(
            f'model.{name}={cfg} has a type that is not registered: correct it, '
            'name the module that has it in custom_imports, or install the whole '
            'package mmdet_rfdetr, if a part of it is missing'
        )
    if not issubclass(kind, TaskHead) or kind.name != name:
        raise SettingError(
            f'model.{name}.type={kind.__name__} is no task head of this name: '
            f'its key is model.{getattr(kind, "name", "bbox_head")}'
        )
    return kind
