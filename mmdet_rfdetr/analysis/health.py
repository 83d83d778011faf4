"""Warnings about runs that look alive and learn nothing."""

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..data.wrappers import innermost
from ..errors import list_names
from ..ops.unwrapped import unwrap_model
from .metric_names import check_metric_names

# What is zero at the start keeps what lies behind it from a gradient for some steps.
_LEAST_STEPS = 10
# A fall of the loss is told from noise in two tenths of its history, this long.
_LEAST_HISTORY = 40
_FALL = 0.9
# An average precision below it comes by chance.
_NEXT_TO_ZERO = 0.0005
# Levels of 0 to 255 that were scaled to 1, or normalised, do not reach the first; what
# changes colours in floating point does not reach the second.
_NEXT_TO_BLACK, _BEYOND_WHITE = 4, 1024


@HOOKS.register_module()
class RFDETRHealthHook(Hook):
    """Look at the start and after the first epoch whether a run can learn anything.

    It warns of

    - a run of iterations that has one checkpoint, at its end;
    - a key of ``paramwise_cfg.custom_keys``, or a group of the optimizer, that matched
      no parameter; and of trainable parameters in no group;
    - images with more objects than queries, or than detections in a validation;
    - no object left, in the annotations or behind the pipeline;
    - images whose pixels are no levels of 0 to 255 when they reach the model;
    - parameters whose gradient was zero or missing in every step;
    - an AP of zero, or next to it, while the loss falls;
    - detections that are not finite, for any metric: they turn all of them into NaN.

    Each is one sentence with what to do next. The first epoch is longer where it has
    fewer than ten optimizer steps. A run whose ``save_best`` or ``monitor`` names no
    metric is stopped before its first step.
    """

    def __init__(self) -> None:
        self._told_of_zero = False
        self._images_not_finite = 0
        self._seen: set[str] = set()
        # Of each batch of the first epoch, None when that is over.
        self._objects: list[int] | None = []
        self._steps = 0
        self._step_hook = None
        self._without_gradient: dict[str, nn.Parameter] = {}

    def before_train(self, runner: Runner) -> None:
        """Look at settings, data and optimizer; prepare to look at the first epoch.

        Raises:
            SettingError: a metric that chooses the best checkpoint or stops the run is
                none of those that there will be.
        """
        check_metric_names(runner)
        check_saving(runner)
        model = unwrap_model(runner.model)
        check_objects(runner, model)
        check_groups(runner, model)
        self._without_gradient = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._step_hook = runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda *_: self._see_gradients()
        )

    def _before_iter(
        self, runner: Runner, batch_idx, data_batch=None, mode='train'
    ) -> None:
        """Look at the first images, and count the objects of a training."""
        if mode not in self._seen:
            self._seen.add(mode)
            check_levels(runner, data_batch, mode)
        if mode == 'train' and self._objects is not None:
            self._objects.append(count_objects(data_batch))

    def _see_gradients(self) -> None:
        """Strike those parameters off the list that have a gradient in this step."""
        self._steps += 1
        gradients = {
            name: parameter.grad
            for name, parameter in self._without_gradient.items()
            if parameter.grad is not None
        }
        if not gradients:
            return
        norms = torch.stack(torch._foreach_norm(list(gradients.values())))
        for name, norm in zip(gradients, norms.tolist(), strict=True):
            if norm > 0:
                del self._without_gradient[name]

    def after_train_epoch(self, runner: Runner) -> None:
        """Tell what was seen in the first epoch of this process."""
        # A run may have been resumed at the end of an epoch, without any batch.
        if self._objects:
            self._tell_of_objects(runner, sum(self._objects))
            self._objects = None
        if self._step_hook is not None and self._steps >= _LEAST_STEPS:
            self._step_hook.remove()
            self._step_hook = None
            self._tell_of_weights(runner)

    def _tell_of_objects(self, runner: Runner, objects: int) -> None:
        objects = torch.tensor(objects)
        all_reduce(objects)
        if not objects and sum(_object_counts(runner.train_dataloader.dataset)):
            runner.logger.warning(
                'The annotations have objects, and no batch of the first epoch had '
                'any: look at the steps of train_dataloader.dataset.pipeline that '
                'crop or filter.'
            )

    def _tell_of_weights(self, runner: Runner) -> None:
        if self._without_gradient:
            runner.logger.warning(
                f'These parameters had no gradient in {self._steps} steps: '
                f'{list_names([*self._without_gradient])}. They learn nothing: freeze '
                'them with requires_grad=False, or find out why no loss term depends '
                'on them.'
            )

    def _after_iter(
        self, runner: Runner, batch_idx, data_batch=None, outputs=None, mode='train'
    ) -> None:
        """Look at the detections of a validation or a test."""
        if mode != 'train':
            self._images_not_finite += count_not_finite(outputs)

    def _tell_of_detections(self, runner: Runner, metrics: dict) -> None:
        """Let no metric make a number of detections that are none."""
        images = torch.tensor(self._images_not_finite)
        all_reduce(images)
        self._images_not_finite = 0
        # RFDETRCocoMetric has logged it already, and which images these are.
        if images and not all(value != value for value in metrics.values()):
            metrics.update(dict.fromkeys(metrics, float('nan')))
            runner.logger.error(
                f'The detections of {images.item()} images are not finite (NaN or '
                'infinity): every metric counts as NaN, and this is no best '
                'checkpoint. Evaluate an earlier one, or in float32 '
                '(model.precision=None).'
            )

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Look whether there were detections."""
        self._tell_of_detections(runner, metrics or {})

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Look at the detections; compare the AP with the course of the loss."""
        self._tell_of_detections(runner, metrics or {})
        # -1 and NaN are no scores.
        scores = {
            name: value
            for name, value in (metrics or {}).items()
            if name.endswith('mAP') and isinstance(value, int | float) and value >= 0
        }
        is_zero = all(score < _NEXT_TO_ZERO for score in scores.values())
        if self._told_of_zero or not scores or not is_zero:
            return
        log = runner.message_hub.log_scalars.get('train/loss')
        if log is None or len(log.data[0]) < _LEAST_HISTORY:
            return
        losses = log.data[0]
        tenth = len(losses) // 10
        first, last = losses[:tenth].mean(), losses[-tenth:].mean()
        if last < _FALL * first:
            self._told_of_zero = True
            how = 'next to' if any(scores.values()) else 'exactly'
            runner.logger.warning(
                f'{", ".join(scores)} is {how} 0 while the loss fell from '
                f'{first:.4g} to {last:.4g}: unless it rises with the next '
                'validations, compare the classes, the image ids and the boxes of the '
                'validation annotations with those of training.'
            )


def check_levels(runner: Runner, batch: object, mode: str) -> None:
    """Warn of images that a pipeline has scaled or normalised, as the model does.

    Args:
        runner: of a model whose ``data_preprocessor`` may normalise.
        batch: as the data loader gives it.
        mode: whose pipeline it is, ``'train'``, ``'val'`` or ``'test'``.
    """
    preprocessor = getattr(unwrap_model(runner.model), 'data_preprocessor', None)
    if not getattr(preprocessor, '_enable_normalize', False):
        return
    inputs = batch.get('inputs') if isinstance(batch, dict) else None
    images = [image for image in tree_leaves(inputs) if isinstance(image, Tensor)]
    low = min((image.min().item() for image in images), default=0)
    high = max((image.max().item() for image in images), default=0)
    if low < high and not _NEXT_TO_BLACK < high < _BEYOND_WHITE:
        runner.logger.warning(
            f'Images have values of {low:.3g} to {high:.3g}, and model.'
            'data_preprocessor, which normalises them, takes levels of 0 to 255: leave '
            f'out the step of {mode}_dataloader.dataset.pipeline that scales or '
            'normalises them.'
        )


def check_saving(runner: Runner) -> None:
    """Warn of a run of iterations that saves once, when it ends."""
    saves_epochs = any(
        isinstance(hook, CheckpointHook) and hook.by_epoch for hook in runner.hooks
    )
    if saves_epochs and isinstance(runner.train_loop, IterBasedTrainLoop):
        runner.logger.warning(
            'IterBasedTrainLoop has one epoch, the whole run, and a checkpoint at its '
            'end: for more, set default_hooks.checkpoint.by_epoch=False and its '
            'interval in iterations.'
        )


def check_objects(runner: Runner, model: nn.Module) -> None:
    """Warn of data without any object, or with more than can be learned or found."""
    trained = _object_counts(runner.train_dataloader.dataset)
    loader = getattr(runner.val_loop, 'dataloader', None)
    validated = _object_counts(getattr(loader, 'dataset', None))
    if trained and not sum(trained):
        runner.logger.warning(
            'The training data has no object at all: the table above says what was '
            'left out and why.'
        )
    if validated and not sum(validated):
        runner.logger.warning(
            'The validation data has no object at all: there will be no score and no '
            'best checkpoint. The table above says what was left out and why.'
        )
    queries = getattr(model, 'num_queries', None)
    if queries is None:
        return
    crowded = [count for count in trained if count > queries]
    if crowded:
        runner.logger.warning(
            f'{len(crowded)} training images have more objects (up to {max(crowded)}) '
            f'than a group has queries ({queries}), and those beyond are not learned: '
            'raise model.num_queries.'
        )
    head = getattr(model, 'bbox_head', None)
    settings = getattr(head, 'test_cfg', None) or {}
    detections = min(queries, settings.get('max_per_img', queries))
    crowded = [count for count in validated if count > detections]
    if crowded:
        runner.logger.warning(
            f'{len(crowded)} validation images have more objects (up to '
            f'{max(crowded)}) than the model can detect in an image ({detections}), '
            'which bounds every metric: raise model.num_queries and '
            'model.test_cfg.max_per_img.'
        )


def check_groups(runner: Runner, model: nn.Module) -> None:
    """Warn of optimizer groups and settings that matched nothing."""
    names = dict(model.named_parameters())
    paramwise = runner.cfg.get('optim_wrapper', {}).get('paramwise_cfg') or {}
    for key in paramwise.get('custom_keys', {}):
        if not any(key in name for name in names):
            runner.logger.warning(
                f'optim_wrapper.paramwise_cfg.custom_keys has {key!r}, and no '
                'parameter has a name that contains it: correct it (names are printed '
                'by [name for name, _ in model.named_parameters()]).'
            )
    groups = runner.optim_wrapper.optimizer.param_groups
    empty = [number for number, group in enumerate(groups) if not group['params']]
    if empty:
        runner.logger.warning(
            f'Groups {empty} of the optimizer have no parameters: correct '
            'optim_wrapper.paramwise_cfg.'
        )
    trained = {id(parameter) for group in groups for parameter in group['params']}
    forgotten = [
        name
        for name, parameter in names.items()
        if parameter.requires_grad and id(parameter) not in trained
    ]
    if forgotten:
        runner.logger.warning(
            f'The optimizer does not know these parameters: {list_names(forgotten)}. '
            'Freeze them with requires_grad=False, or add them to a group.'
        )


def count_not_finite(outputs) -> int:
    """Images of a batch whose detections are not finite; 0 for other outputs."""
    found = [
        torch.cat((instances.scores, instances.bboxes.flatten())).isfinite().all()
        for sample in outputs or ()
        if isinstance(sample, BaseDataElement) and 'pred_instances' in sample
        for instances in [sample.pred_instances]
        if 'scores' in instances and 'bboxes' in instances
    ]
    return len(found) - int(torch.stack(found).sum()) if found else 0


def count_objects(data_batch) -> int:
    """Objects in a batch as the data loader gives it, 0 if it is of another form."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    # Several branches, as for a semi-supervised model, are a dictionary of lists.
    return sum(
        len(sample.get('gt_instances', ()))
        for sample in tree_leaves(samples)
        if isinstance(sample, BaseDataElement)
    )


def _object_counts(dataset) -> list[int]:
    """Objects of each image of those data sets that count them."""
    return [
        count
        for part in innermost(dataset)
        for count in getattr(part, 'object_counts', ())
    ]
