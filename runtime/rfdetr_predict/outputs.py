"""Files of results, each whole whenever it is closed."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import cv2
import numpy as np
from rfdetr_runtime import Detections, Picture, SourceError

from .drawing import draw

_WRITTEN = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')


def json_line(picture: Picture, found: Detections | None) -> str:
    """One object about a picture: what it is, and its detections or its error."""
    row: dict[str, Any] = dict(image=picture.name, image_id=picture.image_id)
    if picture.frame is not None:
        row.update(frame=picture.frame, seconds=round(picture.seconds, 3))
    if found is None:
        return json.dumps({**row, 'error': picture.error})
    height, width = picture.image.shape[:2]
    row.update(width=width, height=height, detections=found.to_list())
    return json.dumps(row)


class JsonLines:
    """``detections.jsonl``, or standard output: one object a picture."""

    def __init__(self, folder: Path, stream: TextIO | None = None) -> None:
        path = folder / 'detections.jsonl'
        self._owned = stream is None
        self._file = stream or open(path, 'w', encoding='utf-8')  # noqa: SIM115

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Add a picture; also one that could not be read."""
        self._file.write(json_line(picture, found) + '\n')
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._owned:
            self._file.close()


class Coco:
    """``coco.json``, results that pycocotools loads, and ``coco_images.json``.

    The second one is a document without annotations, for sources that are no COCO file.

    Args:
        folder: where to.
        names: of the classes.
        category_ids: ids by name, of a COCO file; labels plus one of other classes.
    """

    def __init__(
        self, folder: Path, names: tuple[str, ...], category_ids: dict[str, int]
    ) -> None:
        taken = max(category_ids.values(), default=0)
        self._ids = [
            category_ids.get(name, taken + label)
            for label, name in enumerate(names, start=1)
        ]
        kinds = [
            dict(id=i, name=name) for i, name in zip(self._ids, names, strict=True)
        ]
        start = f'{{"categories": {json.dumps(kinds)}, "annotations": [], "images": ['
        self._images = _Array(folder / 'coco_images.json', start, ']}\n')
        self._results = _Array(folder / 'coco.json', '[', ']\n')

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Add a picture that could be read."""
        if found is None:
            return
        height, width = picture.image.shape[:2]
        size = dict(height=height, width=width)
        self._images.add(dict(id=picture.image_id, file_name=picture.name, **size))
        for row in found.to_list():
            x, y, right, bottom = row['box']
            box = [x, y, round(right - x, 3), round(bottom - y, 3)]
            result = dict(image_id=picture.image_id, bbox=box, score=row['score'])
            result['category_id'] = self._ids[row['label']]
            if 'mask' in row:
                result['segmentation'] = row['mask']
            if row.get('keypoints'):
                result['keypoints'] = [n for point in row['keypoints'] for n in point]
            if 'id' in row:
                result['track_id'] = row['id']
            self._results.add(result)

    def close(self) -> None:
        """End both documents."""
        try:
            self._images.close()
        finally:
            self._results.close()


class _Array:
    """A JSON document around one array, entry by entry."""

    def __init__(self, path: Path, start: str, end: str) -> None:
        self._file = open(path, 'w', encoding='utf-8')  # noqa: SIM115
        self._file.write(start)
        self._end, self._between = end, '\n'

    def add(self, entry: dict) -> None:
        self._file.write(self._between + json.dumps(entry))
        self._between = ',\n'

    def close(self) -> None:
        self._file.write(self._end)
        self._file.close()


class Csv:
    """``detections.csv``: one row a detection."""

    FIELDS = ('image', 'frame', 'id', 'label', 'name', 'score', 'x1', 'y1', 'x2', 'y2')

    def __init__(self, folder: Path) -> None:
        path = folder / 'detections.csv'
        self._file = open(path, 'w', encoding='utf-8', newline='')  # noqa: SIM115
        self._table = csv.writer(self._file)
        self._table.writerow(self.FIELDS)

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Add the detections of a picture."""
        for row in found.to_list() if found is not None else ():
            start = picture.name, picture.frame, row.get('id')
            kind = row['label'], row['name'], row['score']
            self._table.writerow([*start, *kind, *row['box']])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Yolo:
    """``labels/``: a text a picture, ``label cx cy w h [points] score [id]``, relative.

    Of a pose model each point has ``x y score``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._owners = folder / 'labels', {}

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Write the file of a picture; without detections it is empty."""
        if found is None:
            return
        height, width = picture.image.shape[:2]
        lines = []
        for place, (x, y, right, bottom) in enumerate(found.boxes.tolist()):
            middle = (x + right) / 2 / width, (y + bottom) / 2 / height
            sides = (right - x) / width, (bottom - y) / height
            numbers = [*middle, *sides]
            if found.keypoints is not None:
                for x, y, score in found.points_of(place)['keypoints']:
                    numbers += [x / width, y / height, score]
            numbers.append(float(found.scores[place]))
            line = f'{found.labels[place]} ' + ' '.join(f'{n:.6f}' for n in numbers)
            lines.append(line if found.ids is None else f'{line} {found.ids[place]}')
        path = target(self._folder, picture, '.txt', owners=self._owners)
        path.write_text('\n'.join([*lines, '']) if lines else '', encoding='utf-8')

    def close(self) -> None:
        """Nothing is open."""


class Pictures:
    """``pictures/``: each with its detections drawn."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._owners = folder / 'pictures', {}

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Draw a picture."""
        if found is not None:
            path = target(self._folder, picture, owners=self._owners)
            write_image(path, draw(picture.image, found))

    def close(self) -> None:
        """Nothing is open."""


class Crops:
    """``crops/CLASS/``: each detection cut out."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._owners = folder / 'crops', {}

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Cut out the detections of a picture; those below a pixel are left out."""
        for place, name in enumerate(found.names if found is not None else ()):
            x, y = np.floor(found.boxes[place, :2]).astype(int).clip(0)
            right, bottom = np.ceil(found.boxes[place, 2:]).astype(int)
            part = picture.image[y:bottom, x:right]
            if part.size:
                folder = self._folder / PurePosixPath(name).name
                path = target(folder, picture, owners=self._owners)
                write_image(path.with_stem(f'{path.stem}_{place}'), part)

    def close(self) -> None:
        """Nothing is open."""


class Videos:
    """``videos/``: each video, camera and stream, drawn, at its rate, without sound."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._owners = folder / 'videos', {}
        self._name, self._writer, self._size = None, None, None

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Add a frame; other pictures are left out."""
        if found is None or picture.frame is None:
            return
        drawn = draw(picture.image, found)
        if picture.name != self._name or picture.frame == 0:
            self.close()
            path = target(
                self._folder, picture, '.mp4', with_frame=False, owners=self._owners
            )
            self._name, self._size = picture.name, drawn.shape[1::-1]
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(path), code, picture.rate, self._size)
            if not self._writer.isOpened():
                raise SourceError(f'{path} cannot be written: is the disk full?')
        if drawn.shape[1::-1] != self._size:
            drawn = cv2.resize(drawn, self._size)
        self._writer.write(drawn)

    def close(self) -> None:
        """End the video that is open."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None


def target(
    folder: Path,
    picture: Picture,
    suffix: str = '',
    with_frame: bool = True,
    *,
    owners: dict[str, str],
) -> Path:
    """Where a result of a picture goes; the folder is made.

    Args:
        folder: of the results.
        picture: what they are of.
        suffix: of the file; that of the picture where it can be written otherwise.
        with_frame: whether frames of a video have files of their own.
        owners: names of pictures by what is left of them without suffix; who comes
            second, ``a.png`` after ``a.jpg``, keeps its suffix.
    """
    name = PurePosixPath(picture.name)
    bare = name.with_suffix('')
    if owners.setdefault(str(bare), picture.name) != picture.name:
        bare = name
    if picture.frame is not None and with_frame:
        name = bare / f'{picture.frame:06d}'
        bare = name
    if suffix:
        name = bare.with_name(bare.name + suffix)
    elif name.suffix.lower() not in _WRITTEN:
        name = name.with_name(name.name + '.jpg')
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, whatever letters its path has.

    Raises:
        OSError: it cannot be written.
    """
    is_made, data = cv2.imencode(path.suffix, image)
    if not is_made:
        raise OSError(f'{path}: an image of shape {image.shape} cannot be written')
    path.write_bytes(data.tobytes())


MADE_BY: dict[str, Callable] = dict(
    json=JsonLines,
    csv=Csv,
    yolo=Yolo,
    pictures=Pictures,
    video=Videos,
    crops=Crops,
)


class Outputs:
    """All that is written about pictures.

    Args:
        kinds: of ``json``, ``coco``, ``yolo``, ``csv``, ``pictures``, ``video`` and
            ``crops``.
        folder: where to; it is made.
        names: of the classes.
        category_ids: of COCO results, see :class:`Coco`.
        stream: for JSON lines as well.

    Raises:
        SourceError: if the folder cannot be written to.
    """

    def __init__(
        self,
        kinds: Iterable[str],
        folder: Path,
        names: tuple[str, ...],
        category_ids: dict[str, int],
        stream: TextIO | None = None,
    ) -> None:
        self._writers = []
        try:
            for kind in dict.fromkeys(kinds):
                folder.mkdir(parents=True, exist_ok=True)
                if kind == 'coco':
                    self._writers.append(Coco(folder, names, category_ids))
                else:
                    self._writers.append(MADE_BY[kind](folder))
        except OSError as error:
            raise SourceError(f'{folder} cannot be written: {error}') from error
        if stream is not None:
            self._writers.append(JsonLines(folder, stream))

    def write(self, picture: Picture, found: Detections | None) -> None:
        """Write a picture everywhere."""
        for writer in self._writers:
            writer.write(picture, found)

    def close(self) -> None:
        """Make every file whole, also where another one cannot be."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)
