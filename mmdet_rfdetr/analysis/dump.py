"""The file that a run leaves when it stops for a loss that is not finite."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..checkpoints import load_checkpoint_file, save_checkpoint_file
from ..checkpoints.layout import entries_that_fit
from ..errors import CheckpointError
from .diagnosis import Diagnosis, diagnose, non_finite_weights

# What may be another number in each step: rates of dropout and of drop path, and sizes.
_RATES = ('p', 'drop_prob', 'patch_size', 'num_windows', 'num_layers', 'num_queries')
_RATES += ('image_size', 'pad_size_divisor')


@dataclass
class MicroBatch:
    """A batch whose gradient goes into the next optimizer step.

    Attributes:
        iteration: when it was trained on, from 0.
        data: as the data loader gave it.
        random_state: what it met.
        loss: what it came to, once that is known.
        bad_matching: whether one of its matching costs was not finite.
    """

    iteration: int
    data: dict
    random_state: dict
    loss: Tensor | None = None
    bad_matching: bool = False


def write_dump(
    path: str | Path,
    model: nn.Module,
    batches: Sequence[MicroBatch],
    accumulative_counts: int,
) -> None:
    """Write what it takes to compute the losses of an optimizer step again.

    Args:
        path: the file, ending in ``.pth``.
        model: the model, not wrapped.
        batches: those of the step.
        accumulative_counts: micro-batches of an optimizer step.

    Raises:
        CheckpointError: the file cannot be written.
    """
    entries = [
        dict(
            iteration=batch.iteration,
            random_state=batch.random_state,
            inputs=batch.data['inputs'],
            samples=[serialise_sample(sample) for sample in batch.data['data_samples']],
        )
        for batch in batches
    ]
    meta = dict(accumulative_counts=accumulative_counts, rates=_rates(model))
    dump = dict(state_dict=model.state_dict(), meta=meta, batches=entries)
    save_checkpoint_file(dump, path)


def replay(cfg: Config, path: str | Path) -> Iterator[str | tuple[int, Diagnosis]]:
    """Compute the losses and gradients of a dump again, on the CPU.

    Nothing in the file is executed: the model comes from the config.

    Args:
        cfg: the config of the run, which its work folder holds a copy of.
        path: the dump.

    Yields:
        First a sentence on the weights; then for each batch its iteration, from 0, and
        what it came to.

    Raises:
        CheckpointError: the file is none, or does not go with the config.
    """
    dump = load_checkpoint_file(path)
    if 'batches' not in dump:
        raise CheckpointError(
            f'{path} is no dump of RFDETRNonFiniteHook, it has no batches: give a file '
            'non_finite_iter_*.pth from the work folder of the run.'
        )
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    try:
        model.load_state_dict(dump['state_dict'])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f'The weights in {path} do not go with model of the config: give the copy '
            'of the config in the work folder of the run.'
        ) from error
    model.train()
    with entries_that_fit(str(path)):
        rates, counts = dump['meta']['rates'], dump['meta']['accumulative_counts']
        for key in _rates(model).keys() & rates.keys():
            name, _, rate = key.rpartition('.')
            setattr(model.get_submodule(name), rate, rates[key])
        batches = [
            MicroBatch(
                entry['iteration'],
                dict(
                    inputs=entry['inputs'],
                    data_samples=[*map(restore_sample, entry['samples'])],
                ),
                entry['random_state'],
            )
            for entry in dump['batches']
        ]
    broken = non_finite_weights(model)
    yield f'Weights that are not finite: {", ".join(broken) or "none"}'
    hub = MessageHub.get_current_instance()
    hub.update_info('accumulative_counts', counts, resumed=False)
    for batch in batches:
        with entries_that_fit(str(path)):
            hub.update_info('iter', batch.iteration)  # what multi-scale goes by
            found = diagnose(model, batch.data, batch.random_state, backward=True)
        yield batch.iteration, found


def serialise_sample(sample: DetDataSample) -> dict:
    """Metainfo of plain values and objects of a sample, masks as bits."""
    metainfo = {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in sample.metainfo.items()
    }
    instances = sample.gt_instances
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    plain = dict(metainfo=metainfo, bboxes=boxes, labels=instances.labels)
    if 'masks' in instances:
        masks = instances.masks
        if not isinstance(masks, Tensor):
            masks = torch.from_numpy(masks.to_ndarray())
        plain['masks'] = masks.bool()
    return plain


def restore_sample(plain: dict) -> DetDataSample:
    """The reverse of :func:`serialise_sample`."""
    plain = dict(plain)
    sample = DetDataSample(metainfo=plain.pop('metainfo'))
    sample.gt_instances = InstanceData(**plain)
    return sample


def _rates(model: nn.Module) -> dict[str, float]:
    """What may be another number in each step, by the names of the modules."""
    return {
        f'{name}.{rate}': getattr(module, rate)
        for name, module in model.named_modules()
        for rate in _RATES
        if isinstance(getattr(module, rate, None), int | float)
    }
