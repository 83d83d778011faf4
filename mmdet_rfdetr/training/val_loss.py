"""The loss of the validation set."""

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook

from ..data.multi_scale import scale_instances
from ..data.wrappers import innermost
from ..errors import SettingError
from ..ops.unwrapped import unwrap_model


@HOOKS.register_module()
class RFDETRValLossHook(Hook):
    """Log every loss term of the validation set, through the training's own code.

    The model runs once more in ``loss`` mode on each validation batch, with the
    weights that are being validated. As in the official package, it is in
    evaluation mode: one group of queries, no dropout. The terms are averaged over
    images and join the metrics as ``loss``, ``loss_cls`` and so on: logged as
    ``val/loss``, and usable as ``save_best='loss'`` or for early stopping.

    The validation pipeline has to load annotations; whether it does so before or
    after resizing is found out.
    """

    # Metrics are added before RuntimeInfoHook, the first in line, reads them.
    priority = 'HIGHEST'

    def before_val_epoch(self, runner) -> None:
        """Forget the last validation."""
        self._sums: dict[str, float] = {}
        self._images = 0
        self._resized = annotations_are_resized(runner.val_dataloader.dataset)

    @torch.no_grad()
    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Add the loss terms of a batch."""
        model = unwrap_model(runner.model)
        data = model.data_preprocessor(data_batch, False)
        samples = data['data_samples']
        for sample in samples:
            if 'bboxes' not in sample.get('gt_instances', ()):
                raise SettingError(
                    'RFDETRValLossHook needs the annotations of the validation set: '
                    "add dict(type='LoadAnnotations', with_bbox=True) to "
                    'val_dataloader.dataset.pipeline, or remove the hook'
                )
            if not self._resized:
                scale_instances(sample.gt_instances, tuple(sample.scale_factor))
        _, terms = model.parse_losses(model(**data, mode='loss'))
        self._images += len(samples)
        means = torch.stack([*terms.values()]).tolist()
        for name, mean in zip(terms, means, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + mean * len(samples)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Average over the images of all processes."""
        # Some of them may have had no image, and know no terms.
        parts = all_gather_object((self._images, self._sums))
        images = sum(count for count, _ in parts)
        for name in dict.fromkeys(name for _, sums in parts for name in sums):
            metrics[name] = sum(sums.get(name, 0.0) for _, sums in parts) / images


def annotations_are_resized(dataset) -> bool:
    """Whether the pipeline loads annotations before it resizes the image.

    Such annotations are in pixels of the network's input; those loaded later, as
    in mmdet's own pipelines, in pixels of the original image.
    """
    transforms = next(innermost(dataset)).pipeline.transforms
    names = ' '.join(type(transform).__name__ for transform in transforms)
    return 'Resize' not in names.partition('LoadAnnotations')[0]
