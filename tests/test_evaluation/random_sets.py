"""Random data sets and detections for the metric, with everything that is awkward."""

import json

import numpy as np
import pycocotools.mask as rle
import torch
from mmdet.registry import METRICS
from pycocotools.cocoeval import COCOeval

from mmdet_rfdetr.evaluation import coco_metric

CLASSES = ('ant', 'bee', 'cat', 'dog', 'elk')
CATEGORY_IDS = (3, 90, 17, 40, 5)  # not in order
SIZE = (90, 160)  # height and width


def boxes_at_random(rng, count):
    """Boxes xywh of all three ranges of area, partly over the border."""
    sides = np.exp(rng.uniform(np.log(4), np.log(120), (count, 2)))
    corners = rng.uniform(-5, 1, (count, 2)) + rng.uniform(size=(count, 2)) * (130, 70)
    return np.concatenate([corners, sides], axis=1).round(2)


def draw_mask(box):
    """The run-length code of an ellipse in a box."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    centre, half = box[:2] + box[2:] / 2, box[2:] / 2
    inside = ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 < 1
    return rle.encode(np.asfortranarray(inside.astype(np.uint8)))


def polygon(box):
    """The same ellipse with twelve corners, in two parts."""
    angles = np.linspace(0, 2 * np.pi, 13)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1) * box[2:] / 2
    points = box[:2] + box[2:] / 2 + around
    return [points[:7].ravel().tolist(), points[6:].ravel().tolist()]


def make_set(folder, seed=0, images=14, category_ids=CATEGORY_IDS):
    """Write an annotation file; returns its path and detections of each image.

    There are crowds, areas that are not those of the boxes, images without objects,
    images without detections, and many equal scores.
    """
    rng = np.random.default_rng(seed)
    document = dict(
        images=[
            dict(id=7 * i + 2, file_name=f'{i}.png', height=SIZE[0], width=SIZE[1])
            for i in rng.permutation(images).tolist()
        ],
        categories=[
            dict(id=key, name=name)
            for key, name in zip(category_ids, CLASSES, strict=True)
        ],
        annotations=[],
    )
    found = {}
    for number, image in enumerate(document['images']):
        boxes = boxes_at_random(rng, 0 if number == 3 else rng.integers(1, 9))
        labels = rng.integers(len(CLASSES) - 1, size=len(boxes))  # no elk anywhere
        for box, label in zip(boxes, labels.tolist(), strict=True):
            crowd = int(rng.random() < 0.15)
            document['annotations'].append(
                dict(
                    id=len(document['annotations']) + 1,
                    image_id=image['id'],
                    category_id=category_ids[label],
                    bbox=box.tolist(),
                    area=float(box[2] * box[3] * rng.choice([0.5, 1])),
                    iscrowd=crowd,
                    segmentation=_text(draw_mask(box)) if crowd else polygon(box),
                )
            )
        count = {4: 0, 5: 330}.get(number, 12)
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 2, (2 * len(boxes), 4))
        near[:, 2:] = near[:, 2:].clip(1)
        guesses = np.concatenate([near, boxes_at_random(rng, count)])[:count]
        guessed = np.concatenate([labels.repeat(2), rng.integers(5, size=count)])
        found[image['id']] = (
            guesses.reshape(-1, 4),
            guessed[:count],
            rng.random(count).round(1),
        )
    path = folder / f'set_{seed}.json'
    path.write_text(json.dumps(document))
    return path, found


def _text(code):
    return dict(code, counts=code['counts'].decode())


def rounded(result):
    """A result of ours as mmdet gives it."""
    return {name: float(f'{value:.3f}') for name, value in result.items()}


def samples(found, masks=False):
    """Data samples as a model returns them."""
    for image_id, (boxes, labels, scores) in found.items():
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        instances = dict(
            bboxes=torch.tensor(corners, dtype=torch.float32),
            labels=torch.tensor(labels),
            scores=torch.tensor(scores, dtype=torch.float32),
        )
        if masks:
            instances['masks'] = [draw_mask(box) for box in boxes]
        yield dict(img_id=image_id, ori_shape=SIZE, pred_instances=instances)


def evaluate(monkeypatch, found, **settings):
    """Run a metric; returns its result and, unrounded, all averages of each part."""
    stats = []
    theirs, ours = COCOeval.summarize, coco_metric.summarize

    def spy_on_theirs(self):
        theirs(self)
        stats.append(self.stats)

    def spy_on_ours(*arguments):
        averages = ours(*arguments)
        stats.append(list(averages.values()))
        return averages

    metric = METRICS.build(settings)
    metric.dataset_meta = dict(classes=CLASSES)
    masks = 'segm' in settings.get('metric', ())
    metric.process({}, list(samples(found, masks)))
    with monkeypatch.context() as patch:
        patch.setattr(COCOeval, 'summarize', spy_on_theirs)
        patch.setattr(coco_metric, 'summarize', spy_on_ours)
        return metric.evaluate(len(found)), stats
