"""Whether data, model and evaluators of a run mean the same by a label."""

from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.runner import Runner
from torch import nn

from ..class_names import read_class_list, show_classes
from ..data.annotations import clean_categories, read_annotations
from ..data.bad_data_hook import innermost
from ..data.findings import BadDataError, Findings
from ..errors import ExplainedError


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
    most = 0
    for part in innermost(runner.train_dataloader.dataset):
        classes = part.metainfo.get('classes', ()) if hasattr(part, 'metainfo') else ()
        if not classes:
            continue
        classes = read_class_list(classes)
        _check_order(part, classes)
        most = max(most, len(classes))
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


def _check_order(dataset: Any, classes: tuple[str, ...]) -> None:
    """Stop if mmdet's ``CocoDataset`` numbers classes otherwise than their list.

    It follows the order of the categories in the file, as mmdet's ``CocoMetric`` does.
    """
    if getattr(type(dataset), 'load_data_list', None) is not CocoDataset.load_data_list:
        return
    path = dataset.ann_file
    document = read_annotations(path, dataset.backend_args, needs_objects=False)
    names = [str(entry['name']) for entry in clean_categories(document, Findings(path))]
    labels = [name for name in names if name in classes]
    if labels == list(classes):
        return
    missing = [name for name in classes if name not in names]
    what = f'lack {show_classes(missing)}' if missing else 'come in another order'
    raise BadDataError(
        f'The categories of {path} {what}. File: {show_classes(names)}; '
        f'metainfo.classes: {show_classes(classes)}. {type(dataset).__name__} takes '
        "labels in the order of the file: set type='RFDETRCocoDataset', which takes "
        'them by name.'
    )
