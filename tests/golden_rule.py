"""Weights, images and objects made from a rule, for comparisons of two programs.

Both sides of a comparison make the same numbers from a name and a seed, so that
neither weights nor inputs have to be stored or sent. The numbers come from
SHAKE-256, which is the same on every machine, and need numpy only: the official
package's environment can import this module.
"""

import hashlib
import math

import numpy as np


def numbers(name, seed, shape):
    """Uniform float64 in (-1, 1), fixed by name and seed."""
    count = math.prod(shape)
    stream = hashlib.shake_256(f'{seed}/{name}'.encode()).digest(4 * count)
    return ((np.frombuffer(stream, '<u4') + 0.5) / 2**31 - 1).reshape(shape)


def weight(name, shape, seed):
    """Float32 value of an entry of the official state dict.

    Args:
        name: official name; the kind of an entry, and so its scale, follows from it.
        shape: official shape.
        seed: one for all entries of a model.
    """
    centre, spread = _scale(name, shape)
    return (centre + spread * numbers(name, seed, shape)).astype(np.float32)


def _scale(name, shape):
    last = name.rpartition('.')[2]
    if 'class_embed' in name:
        return (-3, 1) if last == 'bias' else (0, 4 / math.sqrt(shape[-1]))
    if last == 'lambda1' or (len(shape) == 1 and last == 'weight'):
        return 1, 0.3  # layer scales and the scales of norms
    if name.endswith('sampling_offsets.bias'):
        return 0, 3
    if name in ('query_feat.weight', 'refpoint_embed.weight'):
        return 0, 0.5
    if last in ('position_embeddings', 'cls_token', 'mask_token', 'register_tokens'):
        return 0, 0.7
    if len(shape) == 1:
        return 0, 0.2
    return 0, math.sqrt(3 / math.prod(shape[1:]))


def images(sizes, batch_size, seed):
    """A batch of normalised images with padding at the right and at the bottom.

    Args:
        sizes: (height, width) of each image.
        batch_size: (height, width) of the batch.
        seed: of the case.

    Returns:
        Tuple of images (B, 3, H, W) float32, zero where padded, and mask (B, H, W),
        True where padded.
    """
    batch = np.zeros((len(sizes), 3, *batch_size), np.float32)
    mask = np.ones((len(sizes), *batch_size), bool)
    for index, (height, width) in enumerate(sizes):
        picture = 2 * numbers(f'image {index}', seed, (3, height, width))
        batch[index, :, :height, :width] = picture
        mask[index, :height, :width] = False
    return batch, mask


def draw(name, shape, seed):
    """Float32 numbers in [0, 1] in the place of random ones."""
    return ((numbers(f'draw {name}', seed, shape) + 1) / 2).astype(np.float32)


def objects(counts, num_classes, seed, mask_size=None):
    """Objects of each image.

    Args:
        counts: number of objects of each image.
        num_classes: labels lie below.
        seed: of the case.
        mask_size: (height, width) of masks, if there shall be any.

    Returns:
        For each image a dict of ``labels`` (n,) int64 and ``boxes`` (n, 4) float32,
        cxcywh relative to the image and inside it; with ``mask_size`` also ``masks``
        (n, height, width) bool, the ellipse in each box.
    """
    made = []
    for index, count in enumerate(counts):
        draws = (numbers(f'objects {index}', seed, (count, 5)) + 1) / 2
        size = 0.1 + 0.4 * draws[:, 2:4]
        centre = size / 2 + draws[:, :2] * (1 - size)
        made.append(
            dict(
                labels=np.floor(draws[:, 4] * num_classes).astype(np.int64),
                boxes=np.concatenate((centre, size), axis=1).astype(np.float32),
            )
        )
        if mask_size is not None:
            made[-1]['masks'] = _ellipses(centre, size, mask_size)
    return made


def with_keypoints(objects, schema, seed):
    """Give objects points.

    Args:
        objects: from :func:`objects`.
        schema: points of each label; those beyond have none.
        seed: of the case.

    Returns:
        The same, with ``keypoints`` (n, Kmax, 3) float32: x and y relative to the image
        and visibility 0, 1 or 2; zeros where it is 0. The second object of the first
        image has none.
    """
    for index, image in enumerate(objects):
        boxes = image['boxes'].astype(np.float64)
        shape = len(boxes), max(schema), 3
        draws = numbers(f'points {index}', seed, shape)
        xy = boxes[:, None, :2] + 0.5 * draws[..., :2] * boxes[:, None, 2:]
        visibility = np.floor(2 * draws[..., 2] + 1.5).clip(0, 2)
        if index == 0:
            visibility[1:2] = 0
        counts = [schema[y] if y < len(schema) else 0 for y in image['labels']]
        visibility[np.arange(max(schema)) >= np.reshape(counts, (-1, 1))] = 0
        points = np.concatenate((xy, visibility[..., None]), axis=-1)
        image['keypoints'] = (points * (visibility > 0)[..., None]).astype(np.float32)
    return objects


def _ellipses(centre, size, mask_size):
    """Masks (n, height, width) of ellipses, (n, 2) relative centres and axes."""
    height, width = mask_size
    x = (np.arange(width) + 0.5) / width - centre[:, :1]
    y = (np.arange(height) + 0.5) / height - centre[:, 1:]
    x, y = x / size[:, :1], y / size[:, 1:]
    return x[:, None, :] ** 2 + y[:, :, None] ** 2 < 0.25
