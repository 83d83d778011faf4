"""The page: what is shown, and the pictures beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as rle
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .documents import as_code
from .evaluation import Evaluation
from .outcomes import Outcome

_SIDE = 1024  # of pictures at most, in pixels
_CONFUSED = 30  # classes that the matrix shows one by one
_KINDS = {'bbox': 'boxes', 'segm': 'masks'}
_OTHERS = 'other classes'


def write_page(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    confusion: np.ndarray,
    worst: Sequence[Outcome],
    load: Callable[[dict], np.ndarray | None],
    **texts: object,
) -> None:
    """Write ``index.html`` and ``pictures/``.

    Args:
        folder: where to.
        evaluations: by kind; the last one decides what is right.
        confusion: of :func:`~rfdetr_report.outcomes.confusion_matrix`.
        worst: images to show.
        load: gives their pixels.
        **texts: ``title``, ``facts`` and ``threshold``.
    """
    (folder / 'pictures').mkdir(parents=True, exist_ok=True)
    last = list(evaluations.values())[-1]
    names = [each.name for each in last.classes]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names and paths are anybody's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, points=_points)
    page = environment.get_template('page.html').render(
        evaluations={_KINDS[kind]: each for kind, each in evaluations.items()},
        kind=_KINDS[last.kind],
        last=last,
        rows=list(zip(*(each.classes for each in evaluations.values()), strict=True)),
        matrix=matrix_rows(confusion, names),
        pictures=[
            _picture(folder, number, outcome, names, load, last.kind == 'segm')
            for number, outcome in enumerate(worst, start=1)
        ],
        **texts,
    )
    (folder / 'index.html').write_text(page, encoding='utf-8')


def _number(value: float | None) -> str:
    """Three digits, or a dash for what is not known."""
    return '–' if value is None else f'{value:.3f}'


def _points(curve: np.ndarray, width: float, height: float) -> str:
    """Points of a polyline: recall to the right, precision upwards."""
    x = np.linspace(0, width, len(curve))
    y = height * (1 - np.asarray(curve))
    return ' '.join(f'{a:.1f},{b:.1f}' for a, b in zip(x, y, strict=True))


def matrix_rows(confusion: np.ndarray, names: Sequence[str]) -> dict:
    """Make the matrix something to be looked at.

    Args:
        confusion: (K + 1, K + 1).
        names: of the classes; of many, those with the most errors are shown, and the
            others as one.

    Returns:
        ``names`` of columns and rows, and ``rows`` of pairs: a count, and its share of
        the row, which is what colours it.
    """
    classes = len(names)
    shown, columns = list(range(classes)), list(names)
    if classes > _CONFUSED + 1:
        wrong = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
        shown = sorted(np.argsort(-wrong[:-1], kind='stable')[:_CONFUSED].tolist())
        columns = [names[label] for label in shown] + [_OTHERS]
        places = np.full(classes + 1, len(shown))
        places[shown] = range(len(shown))
        places[-1] = len(shown) + 1
        folded = np.zeros((len(columns) + 1,) * 2, int)
        np.add.at(folded, tuple(np.meshgrid(places, places, indexing='ij')), confusion)
        confusion = folded
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    rows = [
        (name, list(zip(counts.tolist(), parts.tolist(), strict=True)))
        for name, counts, parts in zip(
            [*columns, 'false'], confusion, shares, strict=True
        )
    ]
    return dict(columns=[*columns, 'missed'], rows=rows, folded=_OTHERS in columns)


def _picture(
    folder: Path,
    number: int,
    outcome: Outcome,
    names: Sequence[str],
    load: Callable[[dict], np.ndarray | None],
    masked: bool,
) -> dict:
    """Write a picture, and say what is drawn on it.

    Returns:
        ``src`` (None if it cannot be read), ``width`` and ``height`` of what is shown,
        its name, numbers of errors, and the shapes of both sides.
    """
    image, source = outcome.image, None
    # As it stands in the annotations.
    pixels = load({**image, 'id': image['key']})
    known = (1, 1) if pixels is None else pixels.shape[:2]
    height, width = image.get('height') or known[0], image.get('width') or known[1]
    scale = min(1.0, _SIDE / max(height, width, 1))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if pixels is not None:
        source = f'pictures/{number:03d}.jpg'
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        coded = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
        (folder / source).write_bytes(coded.tobytes())

    def shapes(kind: str, entries: Sequence[dict], others: Sequence[dict] = ()):
        """Of one side; ``others`` are what they were taken for."""
        for place, entry in enumerate(entries):
            name = names[entry['category_id']]
            label = f'{name} {entry["score"]:.2f}' if 'score' in entry else name
            told = f'{kind}: {label}'
            if others:
                told += f', is {names[others[place]["category_id"]]}'
            x, y, w, h = (scale * value for value in entry['bbox'])
            box = dict(x=round(x, 1), y=round(y, 1), w=round(w, 1), h=round(h, 1))
            path = _outline(entry, image, scale) if masked else ''
            yield dict(box, kind=kind.split()[0], label=label, told=told, path=path)

    right, objects = zip(*outcome.right, strict=True) if outcome.right else ((), ())
    mixed, taken = zip(*outcome.mixed, strict=True) if outcome.mixed else ((), ())
    return dict(
        src=source,
        width=size[0],
        height=size[1],
        name=str(image.get('file_name') or image['key']),
        counts=dict(
            missed=len(outcome.missed),
            false=len(outcome.false),
            mixed=len(outcome.mixed),
        ),
        right=len(outcome.right),
        truth=[
            *shapes('right', objects),
            *shapes('mixed up', taken),
            *shapes('missed', outcome.missed),
        ],
        found=[
            *shapes('right', right),
            *shapes('mixed up', mixed, taken),
            *shapes('false', outcome.false),
        ],
    )


def _outline(entry: dict, image: dict, scale: float) -> str:
    """The border of a mask as an SVG path."""
    mask = rle.decode(as_code(entry['segmentation'], image['height'], image['width']))
    borders, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1)
    parts = []
    for border in borders:
        points = (border[:, 0] + 0.5) * scale
        parts.append('M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in points) + 'Z')
    return ''.join(parts)
