"""A detector whose answers are known: it finds rectangles of one colour on black."""

import cv2
import numpy as np
from rfdetr_runtime import Found

NAMES = ('red', 'green', 'blue')
COLOURS = dict(zip(NAMES, ((0, 0, 255), (0, 255, 0), (255, 0, 0)), strict=True))


class Squares:
    """A model of ``rfdetr_runtime``: what touches and has one colour is an object.

    The score says how large an object is, so that a part of it has a lower one. It
    keeps how many images each call had.
    """

    names = NAMES

    def __init__(self):
        self.batches = []

    def prepare(self, image):
        return image

    def detect(self, inputs, sizes, threshold, most):
        assert [image.shape[:2] for image in inputs] == sizes
        self.batches.append(len(inputs))
        return [self.find(image, threshold, most) for image in inputs]

    def find(self, image, threshold, most):
        rows = []
        for label, name in enumerate(NAMES):
            seen = (image == COLOURS[name]).all(axis=2).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(seen, connectivity=4)
            for x, y, width, height, area in stats[1:].tolist():
                score = min(0.99, 0.1 + area / 1000)
                if score > threshold:
                    rows.append((score, label, x, y, x + width, y + height))
        rows = sorted(rows, key=lambda row: -row[0])[:most]
        masks = np.zeros((len(rows), *image.shape[:2]), bool)
        for mask, (_, _, x, y, right, bottom) in zip(masks, rows, strict=True):
            mask[y:bottom, x:right] = True
        return Found(
            np.array([row[2:] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[0] for row in rows], np.float32),
            np.array([row[1] for row in rows], np.int64),
            masks,
        )


def draw(size, *objects):
    """A picture of (height, width); objects are (name, x, y, right, bottom)."""
    image = np.zeros((*size, 3), np.uint8)
    for name, x, y, right, bottom in objects:
        image[y:bottom, x:right] = COLOURS[name]
    return image


def write_video(path, frames, rate=25):
    """Write frames (H, W, 3) without loss of what this detector looks at."""
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*'FFV1')
    writer = cv2.VideoWriter(str(path), code, rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
