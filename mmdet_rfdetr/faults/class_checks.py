"""Whether loaders, model and evaluators of a run mean the same classes and images."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.evaluator import MultiDatasetsEvaluator
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ..class_names import compare_classes, read_class_list, show_classes
from ..data.coco_dataset import RFDETRCocoDataset
from ..data.wrappers import classes_of, innermost
from ..errors import BadDataError, ExplainedError, SettingError
from ..evaluation.coco_metric import RFDETRCocoMetric
from .annotations import clean_categories, read_annotations
from .coco_dataset import CheckedCocoDataset
from .findings import Finding, Findings
from .same_images import find_images

SPLITS = ('train', 'val', 'test')


def loaders_of(cfg: Config, runner: Runner | None = None) -> dict[str, Any]:
    """Data loaders by split: those that a run has built, and settings of the others.

    Args:
        cfg: the config of the run.
        runner: the run, if there is one.
    """
    loaders = {}
    for split in SPLITS:
        loop = getattr(runner, f'_{split}_loop', None)
        is_built = isinstance(loop, BaseLoop)
        loaders[split] = loop.dataloader if is_built else cfg.get(f'{split}_dataloader')
    return loaders


def check_loaders(loaders: Mapping[str, Any]) -> None:
    """Stop if two data loaders have different classes, or another order.

    Args:
        loaders: see :func:`loaders_of`.

    Raises:
        SettingError: shows both lists.
    """
    lists = {
        split: classes
        for split, loader in loaders.items()
        if (classes := classes_of(loader))
    }
    first = next(iter(lists), None)
    for split, classes in lists.items():
        difference = compare_classes(lists[first], classes)
        if difference:
            raise SettingError(
                f'The classes of {first}_dataloader and {split}_dataloader differ: '
                f'{show_classes(lists[first])} and {show_classes(classes)}; the second '
                f'{difference}. Set the same metainfo=dict(classes=...) in all data '
                'loaders; a file may have its categories in any order and lack some.'
            )


def check_classes(runner: Runner, model: nn.Module) -> None:
    """Compare the classes of the data with its annotation files and the model.

    Args:
        runner: with the training data, maybe in wrappers.
        model: the detector.

    Raises:
        BadDataError: if a data set of mmdet gives labels in another order than that of
            its classes.
        ExplainedError: if the model has fewer outputs than there are classes. Of more
            it warns: labels may be category ids, but they need not have names.
    """
    dataset = runner.train_dataloader.dataset
    for part in innermost(dataset):
        _check_order(part)
    most = len(classes_of(dataset))
    outputs = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    if outputs is None or most in (0, outputs):
        return
    counts = (
        f'The data has {most} classes, and model.bbox_head.num_classes is {outputs}'
    )
    if outputs < most:
        raise ExplainedError(f'{counts}: make them equal.')
    runner.logger.warning(
        f'{counts}: make them equal, unless labels are meant to be that many; a '
        'validation stops at one that is no class of its data.'
    )


def _check_order(dataset: Any) -> None:
    """Stop if mmdet's ``CocoDataset`` numbers classes otherwise than their list.

    It follows the order of the categories in the file, as mmdet's ``CocoMetric`` does.
    """
    if getattr(type(dataset), 'load_data_list', None) is not CocoDataset.load_data_list:
        return
    path, classes = dataset.ann_file, read_class_list(dataset.metainfo['classes'])
    document = read_annotations(path, dataset.backend_args, needs_objects=False)
    names = [str(entry['name']) for entry in clean_categories(document, Findings(path))]
    _require_order(names, classes, path, type(dataset), RFDETRCocoDataset)


def _require_order(
    names: Sequence[str], classes: Sequence[str], path: str, kind: type, ours: type
) -> None:
    """Stop if the categories of a file, less those not asked for, are not classes."""
    if [name for name in names if name in classes] == list(classes):
        return
    missing = [name for name in classes if name not in names]
    what = f'lack {show_classes(missing)}' if missing else 'come in another order'
    raise BadDataError(
        f'The categories of {path} {what}. File: {show_classes(names)}; '
        f'metainfo.classes: {show_classes(classes)}. {kind.__name__} takes labels in '
        f'the order of the file: set type={ours.__name__!r}, which takes them by name.'
    )


def check_evaluation(loop: BaseLoop) -> None:
    """Look at the evaluator of a loop, see :func:`check_evaluator`."""
    check_evaluator(loop.dataloader.dataset, getattr(loop, 'evaluator', None))


def check_evaluator(dataset: Any, evaluator: Evaluator | None) -> None:
    """Stop if an evaluator has the annotations of other images than its data loader.

    The evaluators of MMDetection that read COCO files are looked at, in mmengine's
    ``Evaluator`` and in mmdet's ``MultiDatasetsEvaluator``.

    Args:
        dataset: what will be evaluated, maybe in wrappers.
        evaluator: it has taken the classes of the data set; None without one.

    Raises:
        BadDataError: names both files.
        SettingError: data sets that are joined number classes in different ways, or
            do not have a metric each where they need one.
    """
    for part in innermost(dataset):
        _check_order(part)
    is_separate = isinstance(evaluator, MultiDatasetsEvaluator)
    if is_separate:
        sets = getattr(dataset, 'datasets', [dataset])
        counts = len(sets), len(evaluator.metrics), len(evaluator.dataset_prefixes)
        if len(set(counts)) > 1 or not hasattr(dataset, 'datasets'):
            raise SettingError(
                'MultiDatasetsEvaluator needs a ConcatDataset, and a metric and a '
                'prefix for each of its data sets: there are {} data sets, {} metrics '
                'and {} dataset_prefixes.'.format(*counts)
            )
    elif evaluator is not None:
        classes_of(dataset)  # a label means one class
    for number, metric in enumerate(getattr(evaluator, 'metrics', ())):
        index = getattr(metric, '_coco_api', None)
        if not isinstance(metric, CocoMetric) or index is None:
            continue
        own = dataset.datasets[number] if is_separate else dataset
        path = getattr(metric, '_ann_file', None) or "the evaluator's ann_file"
        if not isinstance(metric, RFDETRCocoMetric):
            names = [str(entry['name']) for entry in index.dataset['categories']]
            _require_order(names, classes_of(own), path, type(metric), RFDETRCocoMetric)
        _check_images(list(innermost(own)), metric, path)


def _check_images(parts: Sequence[Any], metric: CocoMetric, path: str) -> None:
    """Stop if a metric describes other images than those of data sets."""
    if not all(isinstance(part, CocoDataset) for part in parts):
        return
    files = [part.ann_file for part in parts]
    if [os.path.realpath(path)] == [*map(os.path.realpath, files)]:
        return
    infos = [part.get_data_info(index) for part in parts for index in range(len(part))]
    # What the data set has found to be stated wrongly, another file may as well.
    faults = (Finding.SIZE_WRONG, Finding.SIZE_MISSING)
    exact = all(
        isinstance(part, CheckedCocoDataset)
        and not any(part.findings.counts[fault] for fault in faults)
        for part in parts
    )
    index, source = metric._coco_api, ' and '.join(files)
    # Those of mmdet's metric may be of any form.
    boxes = index.imgToAnns if isinstance(metric, RFDETRCocoMetric) else {}
    find_images(infos, index.imgs, boxes, path, source=source, exact=exact)
    print_log(
        f'The data loader reads {source} and its evaluator {path}; their images have '
        'the same names and sizes.',
        logger='current',
    )
