"""How much of their mAP pictures keep when sixteen of them are one picture.

``python -m tests.test_runtime.mosaic CONFIG CHECKPOINT [--tile 128 --overlap 0.4]``
prints the mAP of single pictures, and of mosaics of 4 x 4, in tiles and plain.
"""

import argparse
import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rfdetr_runtime import Detector

PER_SIDE = 4


def pictures_of(folder, count):
    """Pictures of the validation set of the demo, and their objects (label, xywh)."""
    document = json.loads((folder / 'annotations/val.json').read_text())
    for image in document['images'][:count]:
        objects = [
            (each['category_id'], each['bbox'])
            for each in document['annotations']
            if each['image_id'] == image['id']
        ]
        yield cv2.imread(str(folder / 'val' / image['file_name'])), objects


def mosaics(pictures):
    """Sixteen pictures of one size as one, with their objects."""
    per_mosaic = PER_SIDE**2
    for start in range(0, len(pictures) - per_mosaic + 1, per_mosaic):
        images, objects = zip(*pictures[start : start + per_mosaic], strict=True)
        side = len(images[0])
        rows = [
            np.concatenate(images[row : row + PER_SIDE], axis=1)
            for row in range(0, per_mosaic, PER_SIDE)
        ]
        placed = [
            (label, [x + place % PER_SIDE * side, y + place // PER_SIDE * side, w, h])
            for place, of_one in enumerate(objects)
            for label, (x, y, w, h) in of_one
        ]
        yield np.concatenate(rows), placed


def mean_precision(pictures, detect):
    """COCO's mAP of a detector on pictures with objects, of however many."""
    images, annotations, results = [], [], []
    for number, (image, objects) in enumerate(pictures, start=1):
        images.append(dict(id=number, height=image.shape[0], width=image.shape[1]))
        for label, box in objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
        found = detect(image)
        for box, score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels, strict=True
        ):
            x, y, right, bottom = box
            results.append([number, x, y, right - x, bottom - y, score, label + 1])
    with contextlib.redirect_stdout(None):
        truth = COCO()
        truth.dataset = dict(
            images=images,
            annotations=annotations,
            categories=[
                dict(id=label)
                for label in {each['category_id'] for each in annotations}
            ],
        )
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(np.array(results)), 'bbox')
        evaluation.params.maxDets = [1, 10, 10_000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())


def compare(model, folder, *, count=192, **tiles):
    """The mAP of single pictures, of mosaics in tiles, and of plain ones."""
    pictures = list(pictures_of(Path(folder), count))
    joined = list(mosaics(pictures))
    plain = Detector(model, threshold=0)
    tiled = Detector(model, threshold=0, **tiles)
    return (
        mean_precision(pictures, plain),
        mean_precision(joined, tiled),
        mean_precision(joined, plain),
    )


def main():
    """Print the three of them, and what is kept."""
    from mmdet_rfdetr.runtime import CheckpointModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('folder', help='of the demo pictures')
    parser.add_argument('--count', type=int, default=192)
    parser.add_argument('--tile', type=int, default=128)
    parser.add_argument('--overlap', type=float, nargs='+', default=[0.4])
    parser.add_argument('--whole', action='store_true')
    args = parser.parse_args()
    model = CheckpointModel(args.config, args.checkpoint, 'cpu')
    for overlap in args.overlap:
        tiles = dict(tile=args.tile, overlap=overlap, whole=args.whole)
        single, tiled, plain = compare(model, args.folder, count=args.count, **tiles)
        print(
            f'single {single:.4f}, tiled {tiled:.4f} ({tiled / single:.3f}), '
            f'plain {plain:.4f} ({plain / single:.3f}); {tiles}',
            flush=True,
        )


if __name__ == '__main__':
    main()
