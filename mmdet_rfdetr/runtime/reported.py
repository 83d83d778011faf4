"""The page of ``rfdetr_report``, of what a test has just evaluated."""

import json
import logging
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..class_names import join_class_lists, read_class_list
from ..data.wrappers import innermost
from ..errors import SettingError

_KINDS = ['bbox', 'segm']


def report_after(runner: Runner, folder: str, facts: dict[str, str]) -> None:
    """Have the test of a runner end with a page on what its metrics compared.

    Args:
        runner: before its test.
        folder: where to; of several metrics each has a folder in it.
        facts: what the page says at its top, by name.

    Raises:
        SettingError: if no metric is one of COCO, or the folder cannot be made.
    """
    evaluator = runner.test_evaluator
    metrics = [each for each in evaluator.metrics if isinstance(each, CocoMetric)]
    if not metrics:
        kinds = ', '.join(type(each).__name__ for each in evaluator.metrics)
        raise SettingError(
            f'--report shows what a metric of COCO has compared, and test_evaluator is '
            f"{kinds}: add dict(type='RFDETRCocoMetric', metric='bbox') to it"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f'{folder} cannot be made: {error.strerror}') from error
    prefixes = getattr(evaluator, 'dataset_prefixes', None)
    for number, metric in enumerate(metrics):
        place = Path(folder)
        if len(metrics) > 1:
            place /= prefixes[number] if prefixes else str(number)
        title = Path(runner.cfg.filename or 'Detections').stem
        page = dict(folder=place, title=title, facts=facts)
        metric.compute_metrics = partial(
            _compute, metric, metric.compute_metrics, runner, page
        )


def _compute(
    metric: CocoMetric, compute: Callable, runner: Runner, page: dict, results: list
) -> dict[str, float]:
    """The numbers of a metric; writes the page besides."""
    from rfdetr_report import write_report
    from rfdetr_report.evaluation import Settings
    from rfdetr_runtime.errors import SourceError

    found = compute(results)
    entries = _distinct(results)
    document = _document(metric, [target for _, target, _ in entries])
    ids = [image['id'] for image in document['images']]
    numbers = {key: number for key, (number, *_) in zip(ids, entries, strict=True)}
    detections = [
        each
        for key, (*_, prediction) in zip(ids, entries, strict=True)
        for each in _results(key, prediction)
    ]
    # mmdet's own metric counts 100 for mAP, whatever else it counts.
    limit = getattr(metric, 'limit', 100)
    try:
        write_report(
            document=document,
            results=detections,
            load=partial(_load, runner.test_loop.dataloader.dataset, numbers),
            kinds=[kind for kind in _KINDS if kind in metric.metrics] or _KINDS[:1],
            settings=Settings(
                sorted({*metric.proposal_nums, limit}), limit, list(metric.iou_thrs)
            ),
            **page,
        )
    except SourceError as error:
        print_log(f'No report: {error}', logger='current', level=logging.WARNING)
    else:
        print_log(f'Look at {page["folder"] / "index.html"}', logger='current')
    return found


def _distinct(results: Sequence[tuple[dict, dict]]) -> list[tuple[int, dict, dict]]:
    """Each image once: its place in the data set, target and prediction."""
    seen: dict[tuple, tuple[int, dict, dict]] = {}
    for number, (target, prediction) in enumerate(results):
        key = str(target['img_id']), target.get('img_path')
        seen.setdefault(key, (number, target, prediction))
    return list(seen.values())


def _document(metric: CocoMetric, targets: Sequence[dict]) -> dict:
    """What was to be found in the images that were evaluated, in COCO's format.

    Args:
        metric: after it has computed.
        targets: of each image, as ``CocoMetric.process`` took them.

    Returns:
        The document. Images are in the order of the targets, and of the size at which
        they were seen; the ids of the categories are the labels.
    """
    ids: list[Hashable] = [target['img_id'] for target in targets]
    index = metric._coco_api
    if index is None:  # the truth of the samples
        if len(set(ids)) < len(ids):  # of several data sets
            ids = list(range(1, len(ids) + 1))
        targets = [dict(t, img_id=i) for t, i in zip(targets, ids, strict=True)]
        with tempfile.TemporaryDirectory() as folder:
            path = metric.gt_to_coco_json(targets, str(Path(folder, 'truth')))
            index = json.loads(Path(path).read_text())
        names = [str(each['name']) for each in index['categories']]
        labels = {label: label for label in range(len(names))}
        images, annotations = {}, index.get('annotations', [])
    else:
        keys = {str(key): key for key in index.imgs}
        ids = [keys.get(str(key), key) for key in ids]
        labels = {key: i for i, key in enumerate(metric.cat_ids) if key is not None}
        names = _names(metric, index.cats)
        images, annotations = index.imgs, index.anns.values()
    known = set(ids)
    return dict(
        images=[
            dict(
                id=key,
                file_name=images.get(key, {}).get('file_name')
                or target.get('img_path'),
                height=target['height'],
                width=target['width'],
            )
            for key, target in zip(ids, targets, strict=True)
        ],
        categories=[dict(id=label, name=name) for label, name in enumerate(names)],
        annotations=[
            dict(each, category_id=labels[each['category_id']])
            for each in annotations
            if each['image_id'] in known and each['category_id'] in labels
        ],
    )


def _names(metric: CocoMetric, categories: dict) -> list[str]:
    """Of the labels; those of the data set for what the file lacks."""
    metas = metric.dataset_meta
    metas = [metas] if isinstance(metas, Mapping) else metas
    own = join_class_lists([read_class_list(meta['classes']) for meta in metas])
    return [
        own[label] if key is None else str(categories[key]['name'])
        for label, key in enumerate(metric.cat_ids)
    ]


def _results(key: Hashable, prediction: dict) -> Iterator[dict]:
    """COCO results of an image; float32 boxes are exact in them."""
    boxes = np.array(prediction['bboxes'], float).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    columns = boxes.tolist(), prediction['scores'], prediction['labels']
    for place, (box, score, label) in enumerate(zip(*columns, strict=True)):
        found = dict(image_id=key, category_id=int(label), bbox=box, score=float(score))
        if 'masks' in prediction:
            found['segmentation'] = prediction['masks'][place]
        yield found


def _load(dataset: Any, numbers: dict[Hashable, int], image: dict) -> np.ndarray | None:
    """Pixels of an image as the test has read them; None if they cannot be read."""
    try:
        results = dataset.get_data_info(numbers[image['id']])
        for step in next(innermost(dataset)).pipeline.transforms:
            results = step(results)
            if results.get('img') is not None:
                break
        pixels = results['img'][:, :, :3].clip(0, 255).astype(np.uint8)
    except Exception:  # whatever a loader says of a file that is none
        return None
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
