"""Convert a data set (COCO, YOLO, Pascal VOC, CSV) to COCO or YOLO."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/convert_dataset.py data/mine data/mine_coco --to coco
  python tools/convert_dataset.py data/coco data/coco_yolo --to yolo --images copy
  python tools/convert_dataset.py data/voc/ImageSets/Main/val.txt data/val --images none

SRC is a folder, or one data.yaml, COCO file, list in ImageSets or CSV. What the new
format cannot say, or the old one says wrongly, is told. DST gets annotations/ or
labels/ and data.yaml, and images/. No training needs this: mmdet_rfdetr reads all of
them as they lie.
"""


def main() -> int:
    """Parse the arguments and convert.

    Returns:
        0, or 1 with a sentence if it cannot be done.
    """
    parser = cli.tool_parser(__doc__, EXAMPLES)
    parser.add_argument('source', metavar='SRC', help='the data set')
    parser.add_argument('target', metavar='DST', help='a new folder')
    parser.add_argument(
        '--to',
        choices=('coco', 'yolo'),
        help='new format (default: coco, and yolo where SRC is COCO)',
    )
    parser.add_argument(
        '--images',
        choices=('link', 'copy', 'none'),
        default='link',
        help='what becomes of the images (default: links to where they are)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='write into a folder that is not empty'
    )
    args = parser.parse_args()
    if not Path(args.source).exists():
        parser.error(f'{args.source!r} does not exist (looked from {Path.cwd()}).')
    target = Path(args.target)
    is_full = target.is_dir() and any(target.iterdir()) and not args.overwrite
    if is_full or target.is_file():
        parser.error(f'{target} is not empty: name another folder, or --overwrite.')

    from rfdetr_datasets import DatasetError

    try:
        convert(args)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def convert(args: argparse.Namespace) -> None:
    """Convert all splits, and say what was found, written and lost.

    Raises:
        DatasetError: if the data set cannot be read, or the other not be written.
    """
    import rfdetr_convert as writing
    from rfdetr_datasets import find_dataset
    from rfdetr_predict.progress import watched

    found = find_dataset(args.source)
    documents = {name: split.document(watched) for name, split in found.splits.items()}
    classes, target = found.classes, Path(args.target)
    print(f'{args.source} is {found.format.upper()} with {len(classes)} classes.')
    print(*found.notes, sep='\n', end='\n' * bool(found.notes))
    kind = args.to or ('yolo' if found.format == 'coco' else 'coco')
    scheme = writing.point_scheme([*documents.values()])
    for name, document in documents.items():
        lost, root = writing.Lost(), found.splits[name].image_root
        images = list(sized(document['images'], root, lost))
        document = dict(document, images=images)
        names = writing.target_names(document)
        if args.images != 'none':
            folder, copy = target / 'images' / name, args.images == 'copy'
            for missing in writing.place_images(
                names, root, folder, copy=copy, watch=watched
            ):
                lost.add('images that do not exist: written without them', missing)
        options = dict(lost=lost, overwrite=args.overwrite, watch=watched)
        if kind == 'yolo':
            writing.write_yolo(
                document, target, name, classes, scheme=scheme, names=names, **options
            )
            place = target / 'labels' / name
        else:
            if found.format != 'coco':  # whose categories stay as they are
                document = numbered(document, classes)
            if args.images != 'none':
                document = dict(document, images=list(renamed(images, names)))
            place = target / 'annotations' / f'instances_{name}.json'
            writing.write_coco(document, place, **options)
        objects = len(document['annotations'])
        print(f'{place}: {len(images)} images; {objects} objects were read.')
        print(*(f'  {line}\n' for line in lost.lines()), sep='', end='')
    if kind == 'yolo':
        writing.write_settings(
            target, classes, documents, scheme=scheme, overwrite=args.overwrite
        )
        print(target / 'data.yaml')
        if scheme and scheme.swap is None:
            print('Left and right points are not told apart: it has no flip_idx.')
    if args.images == 'none':
        roots = dict.fromkeys(split.image_root for split in found.splits.values())
        print(f'The images stay in {", ".join(roots)}.')
        if kind == 'yolo':
            print(f'YOLO looks for them in {target / "images"}: put them there.')


def sized(images: list[dict], root: str, lost) -> Iterator[dict]:
    """Images with their sizes, of the file where none is stated."""
    from rfdetr_datasets.files import image_entry, read_size

    for image in images:
        name = image.get('file_name')
        if isinstance(name, str) and None in (image.get('height'), image.get('width')):
            size = read_size(os.path.join(root, name))
            if size is None:
                lost.add('images that cannot be opened: left out with objects', name)
                continue
            image = image | image_entry(image['id'], name, size)
        yield image


def numbered(document: dict, classes: list[str]) -> dict:
    """The document with categories of all splits, numbered from 1."""
    order = {name: number for number, name in enumerate(classes, start=1)}
    keys = {entry['id']: order[entry['name']] for entry in document['categories']}
    known = {entry['name']: entry for entry in document['categories']}
    return dict(
        document,
        categories=[
            dict(known.get(name, {}), id=number, name=name)
            for name, number in order.items()
        ],
        annotations=[
            dict(annotation, category_id=keys.get(annotation['category_id']))
            for annotation in document['annotations']
        ],
    )


def renamed(images: list[dict], names: dict[str, str]) -> Iterator[dict]:
    """Images with the names of their new files."""
    for image in images:
        name = image.get('file_name')
        yield dict(image, file_name=names.get(name, name))


if __name__ == '__main__':
    sys.exit(main())
