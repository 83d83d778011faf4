"""Pictures and annotations that a benchmark draws for itself."""

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (900, 1200)
"""Height and width: about one megapixel, every third picture on end."""


def draw_data_set(folder: Path, count: int, boxes: int, classes: list[str]) -> Path:
    """Write JPEGs and a COCO file.

    The pictures are smooth with a little noise, which makes their files about as large
    as photographs of a good camera, or larger: decoding is not flattered.

    Args:
        folder: where to; made if needed.
        count: number of pictures.
        boxes: objects on each.
        classes: names of the categories.

    Returns:
        Path of the annotation file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        height, width = SIZE if number % 3 else SIZE[::-1]
        coarse = rng.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noisy = smooth + rng.normal(0, 9, smooth.shape)
        name = f'{number}.jpg'
        cv2.imwrite(
            str(folder / name),
            noisy.clip(0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 90],
        )
        sides = rng.random((boxes, 2)) * (0.4 * width, 0.4 * height) + 8
        corners = rng.random((boxes, 2)) * ((width, height) - sides)
        labels = rng.integers(len(classes), size=boxes)
        images.append(dict(id=number, file_name=name, height=height, width=width))
        annotations += [
            dict(
                id=len(annotations) + index,
                image_id=number,
                category_id=label + 1,
                bbox=box,
                area=box[2] * box[3],
                iscrowd=0,
            )
            for index, (box, label) in enumerate(
                zip(np.hstack([corners, sides]).tolist(), labels.tolist(), strict=True),
                start=1,
            )
        ]
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, start=1)]
    path = folder / 'annotations.json'
    path.write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    return path
