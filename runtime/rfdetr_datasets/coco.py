"""COCO JSON, beside its images or apart from them."""

import json
import os

from .files import DatasetError, read_text

KEYS = ('images', 'annotations', 'categories')


def read_coco(path: str) -> dict:
    """Read a COCO file as it is.

    Raises:
        DatasetError: if it is cut off, no JSON or not COCO's.
    """
    try:
        document = json.loads(read_text(path))
    # Of JSON that nests too deeply, or has numbers of thousands of digits, too.
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path} is cut off or no JSON ({error}).') from error
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in KEYS
    ):
        raise DatasetError(
            f'{path} is no COCO file: it needs the lists {", ".join(KEYS)}.'
        )
    for key in KEYS:
        entries = document[key]
        document[key] = [entry if isinstance(entry, dict) else {} for entry in entries]
    return document


def is_coco(path: str) -> bool:
    """Whether the beginning of a file looks like COCO's, without reading it all."""
    with open(path, 'rb') as file:
        head = file.read(1 << 16)
        file.seek(max(0, os.path.getsize(path) - (1 << 16)))
        ends = head + file.read()
    return b'"images"' in ends or b'"annotations"' in ends or b'"categories"' in ends


def find_images(document: dict, folders: list[str]) -> str | None:
    """The first folder that holds an image of a document; None if none does."""
    names = [image.get('file_name') for image in document['images'][:20]]
    names = [name.replace('\\', '/') for name in names if isinstance(name, str)]
    for folder in folders:
        if any(os.path.isfile(os.path.join(folder, name)) for name in names):
            return folder
    return None


def class_names(documents: list[dict]) -> list[str]:
    """Names of the categories in their order, less those that only group others.

    Exports of annotation platforms have a root that has no objects and is the
    ``supercategory`` of all others.
    """
    used, parents, names = set(), set(), {}
    for document in documents:
        used |= {str(raw.get('category_id')) for raw in document['annotations']}
        parents |= {str(entry.get('supercategory')) for entry in document['categories']}
    for document in documents:
        for entry in document['categories']:
            name, key = str(entry.get('name')), str(entry.get('id'))
            own_parent = str(entry.get('supercategory'))
            groups = name in parents and name != own_parent and key not in used
            if entry.get('name') is not None and not groups:
                names.setdefault(name)
    return list(names)
