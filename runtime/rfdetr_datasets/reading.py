"""What lies in a folder, and reading it by the name that a config has for it."""

import os
import re
from dataclasses import dataclass, field

from . import coco, csv_boxes, voc, yolo
from .files import SPLITS, DatasetError, Watch, is_image, list_files, split_of

DATASET_TYPES = dict(
    coco='RFDETRCocoDataset',
    yolo='RFDETRYoloDataset',
    voc='RFDETRVocDataset',
    csv='RFDETRCsvDataset',
)
"""Data sets of mmdet_rfdetr by format."""
_ENDINGS = {'.json': 'coco', '.csv': 'csv', '.tsv': 'csv'}
_ENDINGS |= {'.yaml': 'yolo', '.yml': 'yolo'}
_USUAL = 'data.yaml', 'data.yml', 'dataset.yaml', 'dataset.yml'
_PART = re.compile(r'(.+)#(train|val|test)')
_AT_MOST = 4  # names in a message


@dataclass
class Split:
    """One part of a data set.

    Attributes:
        ann_file: ``ann_file`` of its data set and of its metric; a ``#val`` at its end
            says which part of a file is meant.
        image_root: folder of the images, ``data_prefix['img']`` of the data set.
        options: other settings of its data set.
    """

    ann_file: str
    image_root: str
    options: dict = field(default_factory=dict)
    _document: dict | None = field(default=None, repr=False, compare=False)

    def document(self, watch: Watch = iter) -> dict:
        """The COCO document, read once; ``file_name`` is relative to the root.

        Raises:
            DatasetError: if it cannot be read.
        """
        if self._document is None:
            self._document = read(self.ann_file, watch)
        return self._document


@dataclass
class Found:
    """A data set.

    Attributes:
        format: ``'coco'``, ``'yolo'``, ``'voc'`` or ``'csv'``.
        path: the file or folder that it was found by.
        splits: its parts, by ``'train'``, ``'val'`` and ``'test'``.
        notes: sentences about parts that are named and not there.
    """

    format: str
    path: str
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    _classes: list[str] | None = field(default=None, repr=False, compare=False)

    @property
    def dataset_type(self) -> str:
        """The data set of mmdet_rfdetr that reads it."""
        return DATASET_TYPES[self.format]

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of their labels.

        Raises:
            DatasetError: if a part cannot be read.
        """
        if self._classes is None:
            if self.format == 'yolo':
                settings = yolo.read_settings(self.path)
                self._classes = [*yolo.read_names(settings, self.path).values()]
            else:
                documents = [split.document() for split in self.splits.values()]
                self._classes = coco.class_names(documents)
                if self.format != 'coco':  # each part has the names that it needs
                    self._classes.sort()
        return self._classes


def kind_of(ann_file: str) -> str | None:
    """Which format an ``ann_file`` is of: by its ending, a folder of XML is VOC.

    Returns:
        A key of ``DATASET_TYPES``; None if it is none of them.
    """
    path, _ = _part_of(ann_file)
    ending = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        return 'voc'
    if ending == '.txt':
        root, folder = voc.voc_root(path)
        return 'voc' if root != folder or 'ImageSets' in path else None
    return _ENDINGS.get(ending)


def image_root(ann_file: str) -> str:
    """The folder to which the names of images are relative; not for COCO."""
    path, _ = _part_of(ann_file)
    if kind_of(ann_file) == 'voc':
        return voc.voc_root(path)[0]
    return os.path.dirname(path) or '.'


def read(ann_file: str, watch: Watch = iter) -> dict:
    """Read an ``ann_file`` of any format.

    Args:
        ann_file: a COCO file; ``data.yaml#val`` of YOLO, of which ``#val`` says which
            part is meant; a list in ``ImageSets`` or a folder of XML; a CSV, where it
            has a column ``split`` with such an end.
        watch: is given the images, files or rows, and gives them back.

    Returns:
        The COCO document, see the package.

    Raises:
        DatasetError: if it cannot be read, or does not say which part is meant.
    """
    path, split = _part_of(ann_file)
    kind = kind_of(ann_file)
    if kind is None:
        raise DatasetError(
            f'{ann_file} is no data set: name a COCO file (.json), a data.yaml#train '
            'of YOLO, a list in ImageSets or a folder of XML, or a .csv.'
        )
    if kind == 'voc':
        return voc.read_voc(path, watch)
    if not os.path.isfile(path):
        raise DatasetError(f'{path} does not exist: set data_root and ann_file.')
    if kind == 'coco':
        return coco.read_coco(path)
    if kind == 'csv':
        return csv_boxes.read_csv(path, split, watch)
    if split is None:
        settings = yolo.read_settings(path)
        splits = [name for name in SPLITS if yolo.has_split(settings, name)]
        shown = ' or '.join(f'{path}#{name}' for name in splits or SPLITS)
        raise DatasetError(f'{path} has several parts: write ann_file={shown}')
    return yolo.read_yolo(path, split, watch)


def _part_of(ann_file: str) -> tuple[str, str | None]:
    """Path of a file, and the part of it that is meant."""
    found = _PART.fullmatch(str(ann_file))
    return (found[1], found[2]) if found else (str(ann_file), None)


def find_dataset(path: str) -> Found:
    """Say what data set a folder or file is.

    Args:
        path: a folder with ``data.yaml``, with COCO files (in it, in ``annotations``,
            or as ``train/_annotations.coco.json``), with XML, or with a CSV of boxes;
            or one of these files.

    Raises:
        DatasetError: if there is none, or several; says what lies there.
    """
    path = os.path.normpath(str(path))
    if not os.path.exists(path):
        raise DatasetError(f'{path} does not exist (looked from {os.getcwd()}).')
    if os.path.isfile(path):
        found = [_by_file(path)]
    else:
        found = [found for look in _LOOKS if (found := look(path))]
        inner = [entry.path for entry in os.scandir(path) if entry.is_dir()]
        # An archive, unpacked into a folder of its own name.
        if not found and len(inner) == 1 and len(os.listdir(path)) == 1:
            return find_dataset(inner[0])
    if len(found) > 1:
        shown = ' and '.join(f'{each.format.upper()} ({each.path})' for each in found)
        raise DatasetError(
            f'{path} holds several data sets, {shown}: name one by its path.'
        )
    if not found:
        raise DatasetError(f'{path} holds no data set. {_what_lies_there(path)}')
    return found[0]


def _by_file(path: str) -> Found:
    kind, split = kind_of(path), split_of(os.path.basename(path)) or 'train'
    if kind == 'yolo':
        return _found_yolo(path)
    if kind == 'coco':
        return _found_coco(path, {split: path})
    if kind == 'csv':
        return _found(kind, path, _parts_of_table(path, split))
    if kind == 'voc':
        return _found(kind, path, {split: path})
    raise DatasetError(
        f'{path} is no data set: name a folder, a data.yaml, a COCO file (.json), a '
        'list in ImageSets or a .csv.'
    )


def _found(kind: str, path: str, files: dict[str, str], **more) -> Found:
    """A data set of which the ``ann_file`` of each split is known."""
    splits = {
        name: Split(files[name], image_root(files[name]))
        for name in SPLITS
        if name in files
    }
    return Found(kind, path, splits, **more)


def _look_yolo(folder: str) -> Found | None:
    paths = [os.path.join(folder, name) for name in _USUAL]
    paths = [path for path in paths if os.path.isfile(path)]
    return _found_yolo(_only(paths, 'YOLO')) if paths else None


def _found_yolo(path: str) -> Found:
    settings = yolo.read_settings(path)
    files, notes = {}, []
    for name in SPLITS:
        if yolo.has_split(settings, name):
            try:
                yolo.find_places(settings, path, name)
            except DatasetError as error:
                if name == 'train':
                    raise
                notes.append(str(error))  # exports name parts that they do not have
            else:
                files[name] = f'{path}#{name}'
    if not files:
        raise DatasetError(
            f'{path} names no images: write train: and the folder of them into it.'
        )
    return _found('yolo', path, files, notes=notes)


def _look_coco(folder: str) -> Found | None:
    files = {}
    for split, paths in _gather(folder, '.json').items():
        paths = [path for path in paths if coco.is_coco(path)]
        usual = rf'instances_{split}[0-9]*\.json'
        best = [path for path in paths if re.fullmatch(usual, os.path.basename(path))]
        if paths:
            files[split or 'train'] = _only(best or paths, f'COCO ({split or "any"})')
    return _found_coco(folder, files) if files else None


def _found_coco(path: str, files: dict[str, str]) -> Found:
    splits = {}
    for split in SPLITS:
        if split in files:
            document = coco.read_coco(files[split])
            folder = _images_of_coco(files[split], split, document)
            splits[split] = Split(files[split], folder, _document=document)
    return Found('coco', path, splits)


def _images_of_coco(path: str, split: str, document: dict) -> str:
    """The folder of the images of a COCO file: the first that holds one of them.

    Raises:
        DatasetError: if none does.
    """
    own = os.path.dirname(path) or '.'
    folders = [own]
    for root in (own, os.path.join(own, '..')):
        for place in (os.path.join(root, 'images'), root):
            inner = sorted(_folders(place), key=lambda name: split_of(name) != split)
            folders += [os.path.join(place, name) for name in inner]
        folders.append(root)
    found = coco.find_images(document, [*map(os.path.normpath, folders)])
    if found is None:
        images = document['images']
        name = images[0].get('file_name') if images else 'none is listed'
        raise DatasetError(
            f'The images of {path} are in none of the folders beside it, for example '
            f'{name}: move them there.'
        )
    return found


def _look_voc(folder: str) -> Found | None:
    _, place = voc.voc_root(folder)
    if _has(place, voc.is_xml):
        lists = voc.find_splits(folder)
        lists.setdefault('train', lists.get('trainval', place))
        return _found('voc', folder, lists)
    inner = {split_of(name): os.path.join(folder, name) for name in _folders(folder)}
    files = {  # train/, valid/, each with XML beside its images
        split: path
        for split, path in inner.items()
        if split and _has(voc.voc_root(path)[1], voc.is_xml)
    }
    return _found('voc', folder, files) if files else None


def _look_csv(folder: str) -> Found | None:
    tables = {
        split: [path for path in paths if csv_boxes.is_table(path)]
        for split, paths in _gather(folder, ('.csv', '.tsv')).items()
    }
    files = {
        split: _only(paths, f'CSV ({split or "any"})')
        for split, paths in tables.items()
        if paths
    }
    if [*files] == ['']:
        return _found('csv', files[''], _parts_of_table(files[''], 'train'))
    return _found('csv', folder, files) if files else None


def _parts_of_table(path: str, default: str) -> dict[str, str]:
    """The splits of a table that names them in a column, else one."""
    parts = {name: f'{path}#{name}' for name in csv_boxes.splits_of(path)}
    return parts or {default: path}


_LOOKS = _look_yolo, _look_coco, _look_voc, _look_csv


def _gather(folder: str, endings: str | tuple[str, ...]) -> dict[str, list[str]]:
    """Files by split: by their own name, or by that of the folder that they lie in."""
    inner = [(os.path.join(folder, name), split_of(name)) for name in _folders(folder)]
    places = [(folder, ''), (os.path.join(folder, 'annotations'), '')]
    found: dict[str, list[str]] = {}
    for place, split in [*places, *(each for each in inner if each[1])]:
        names = os.listdir(place) if os.path.isdir(place) else ()
        for name in sorted(name for name in names if name.endswith(endings)):
            own = split or split_of(name) or ''
            found.setdefault(own, []).append(os.path.join(place, name))
    return found


def _only(paths: list[str], kind: str) -> str:
    """The one path.

    Raises:
        DatasetError: if there are several.
    """
    if len(paths) > 1:
        shown = ', '.join(paths[:_AT_MOST])
        raise DatasetError(f'There are several files of {kind}: {shown}. Name one.')
    return paths[0]


def _folders(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _has(folder: str, wanted) -> bool:
    return os.path.isdir(folder) and any(map(wanted, os.listdir(folder)))


def _what_lies_there(folder: str) -> str:
    """What to do about a folder in which nothing was found."""
    if os.path.isdir(os.path.join(folder, 'labels')):
        return (
            'It looks like YOLO without a data.yaml: write one with the lines train: '
            'images (the folder), val: and names: [first, second, ...].'
        )
    entries = sorted(os.listdir(folder))
    if tables := [name for name in entries if name.endswith('.csv')]:
        return f'{tables[0]} has other columns. {csv_boxes.NEEDED}'
    more = f' and {len(entries) - _AT_MOST} more' if len(entries) > _AT_MOST else ''
    return (
        'Looked for data.yaml (YOLO), annotations/*.json and '
        'train/_annotations.coco.json (COCO), Annotations/*.xml (Pascal VOC) and a '
        f'table of boxes (CSV); there are {len(list_files(folder, is_image))} images '
        f'below, and at the top {", ".join(entries[:_AT_MOST]) or "nothing"}{more}.'
    )
