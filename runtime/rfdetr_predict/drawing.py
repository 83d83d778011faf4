"""Detections drawn on their pictures."""

import colorsys
from functools import cache

import cv2
import numpy as np
from rfdetr_runtime import Detections

_OPACITY = 0.45
_FOUND = 0.5
"""Score from which on a point is drawn full, and lines lead to it."""
_GUESSED = 0.1
"""Score from which on it is drawn as a ring."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@cache
def colour(number: int) -> tuple[int, int, int]:
    """A colour (B, G, R) of a class or an id, unlike those of its neighbours."""
    hue = number * 0.618034 % 1  # the golden ratio spreads any number of them
    value = 1.0 if number % 2 else 0.8
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw(image: np.ndarray, found: Detections) -> np.ndarray:
    """Draw masks, boxes, keypoints, names, scores and ids.

    Args:
        image: (H, W, 3) uint8 BGR.
        found: of this image; classes have colours, with ids each object has.

    Returns:
        Another image of the same shape.
    """
    drawn = image.copy()
    unit = max(1, round(max(image.shape[:2]) / 640))
    numbers = found.labels if found.ids is None else found.ids
    for place in reversed(range(len(found))):  # the best lies on top
        shade = colour(int(numbers[place]))
        if found.masks is not None:
            mask = found.masks[place]
            tint = (1 - _OPACITY) * drawn[mask] + _OPACITY * np.array(shade)
            drawn[mask] = tint.astype(np.uint8)
        x, y, right, bottom = found.boxes[place].round().astype(int).tolist()
        cv2.rectangle(drawn, (x, y), (right, bottom), shade, 2 * unit)
        if found.keypoints is not None:
            _draw_points(drawn, found, place, shade, unit)
        text = f'{found.names[place]} {found.scores[place]:.2f}'
        if found.ids is not None and found.ids[place] >= 0:
            text = f'#{found.ids[place]} {text}'
        _write(drawn, text, x, y, shade, unit)
    return drawn


def _draw_points(
    drawn: np.ndarray, found: Detections, place: int, shade, unit: int
) -> None:
    """Draw the skeleton of a detection, and its points in a colour each."""
    points = [
        (round(x), round(y), score)
        for x, y, score in found.points_of(place)['keypoints']
    ]
    for one, other in found.scheme.get('skeleton') or ():
        if max(one, other) < len(points):
            ends = points[one], points[other]
            if min(end[2] for end in ends) >= _FOUND:
                line = ends[0][:2], ends[1][:2], shade, unit, cv2.LINE_AA
                cv2.line(drawn, *line)
    for number, (x, y, score) in enumerate(points):
        if score >= _GUESSED:
            width = -1 if score >= _FOUND else unit
            cv2.circle(drawn, (x, y), 3 * unit, colour(number), width, cv2.LINE_AA)


def _write(drawn: np.ndarray, text: str, x: int, y: int, shade, unit: int) -> None:
    """Write a label above a place, or below where there is no room above."""
    (width, height), below = cv2.getTextSize(text, _FONT, 0.45 * unit, unit)
    top = y - height - below - unit if y > height + below else y
    x = max(0, min(x, drawn.shape[1] - width))
    corner = x + width, top + height + below + unit
    cv2.rectangle(drawn, (x, top), corner, shade, -1)
    dark = (0, 0, 0) if sum(shade) > 330 else (255, 255, 255)
    place = (x, top + height + unit)
    cv2.putText(drawn, text, place, _FONT, 0.45 * unit, dark, unit, cv2.LINE_AA)
