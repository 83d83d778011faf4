"""COCO files of what any reader gives."""

import json
from pathlib import Path

from rfdetr_datasets.files import Watch

from .usable import Lost, usable
from .whole_files import write_whole


def write_coco(
    document: dict,
    path: str | Path,
    *,
    lost: Lost | None = None,
    overwrite: bool = False,
    watch: Watch = iter,
) -> Lost:
    """Write a COCO file.

    Args:
        document: of any reader. Ids of objects that are no numbers are replaced.
        path: the file; it is there as a whole or not at all.
        lost: what is left out is added to it, where there is one.
        overwrite: whether to replace a file that is there.
        watch: is given the images with their objects, and gives them back.

    Returns:
        What was left out.

    Raises:
        DatasetError: if the file is there, or cannot be written.
    """
    lost = lost or Lost()
    parts = usable(document, lost)
    ids = [annotation.get('id') for _, objects in parts for annotation in objects]
    are_numbers = all(type(key) is int for key in ids) and len({*ids}) == len(ids)
    annotations = []
    for _, objects in watch(parts):
        for annotation in objects:
            area = annotation['bbox'][2] * annotation['bbox'][3]
            number = annotation['id'] if are_numbers else len(annotations) + 1
            whole = dict(area=area, iscrowd=0) | annotation | dict(id=number)
            annotations.append(whole)
    images = [image for image, _ in parts]
    written = dict(document, images=images, annotations=annotations)
    write_whole({Path(path): json.dumps(written, ensure_ascii=False)}, overwrite)
    return lost
