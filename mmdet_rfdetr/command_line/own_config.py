"""The config that ``tools/train_on.py`` writes for a data set."""

import argparse
import os
from pathlib import Path

from rfdetr_datasets import Found, Split
from rfdetr_datasets.points import points_of_categories

from ..errors import SettingError
from ..image_size import set_image_size
from ..shipped import config
from .config_errors import read_config

_STYLE = dict(based_on_style='google', column_limit=88, dedent_closing_brackets=True)


def config_text(args: argparse.Namespace, found: Found, command: str) -> str:
    """Write a config that says of a shipped one what is different.

    Args:
        args: of the tool; what they leave open is as in the shipped config.
        found: the data.
        command: that trains with the config.

    Raises:
        ImageSizeError: the image size does not divide.
        SettingError: a name or a path would mean something else to mmengine; or there
            are no points for ``--pose``.
    """
    base = read_config(config(args.base))
    set_image_size(base, args.image_size or base.image_size)
    root = Path(os.path.abspath(found.path))  # links stay: folders beside them count
    root = root if root.is_dir() else root.parent
    # One data set reads the points of all formats.
    kind = None if args.task == 'pose' else found.dataset_type
    splits = {name: _source(kind, split, root) for name, split in found.splits.items()}
    template = Path(__file__).with_suffix('.txt').read_text(encoding='utf-8')
    text = template.format(
        args=args,
        found=found,
        # A comment ends with its line.
        path=' '.join(args.path.splitlines()),
        command=' '.join(command.splitlines()),
        image_size=base.image_size,
        data_root=f'{root.as_posix()}/',
        classes=tuple(found.classes),
        points=_points(found) if args.task == 'pose' else '',
        splits='\n'.join(f'{name} = {keys}' for name, keys in splits.items()),
        batch_size=args.batch_size or base.train_dataloader.batch_size,
        test='test' if 'test' in splits else 'val',
        epochs=args.epochs or base.train_cfg.max_epochs,
    )
    if '{{' in text:
        raise SettingError(
            "a class, a file or a folder has '{{' in its name, which mmengine replaces "
            'wherever it stands in a config: rename it.'
        )
    from yapf.yapflib.yapf_api import FormatCode  # as mmengine does

    return FormatCode(text, style_config=_STYLE)[0]


def _points(found: Found) -> str:
    """The key of the head that learns points, as code."""
    document = found.splits['train'].document()
    names = points_of_categories(document['categories'], document['annotations'])
    counts = [len(names.get(name, ())) for name in found.classes]
    if not any(counts):
        raise SettingError('--pose learns keypoints, and the objects have none.')
    return f', keypoint_head=dict(num_keypoints={counts})'


def _source(kind: str | None, split: Split, root: Path) -> str:
    """The keys of the data set of a split, as code; None for that of the base."""

    def place(path: str) -> str:
        whole = Path(os.path.abspath(path))
        if not whole.is_relative_to(root):
            return repr(whole.as_posix())
        inner = whole.relative_to(root).as_posix()
        return 'data_root' if inner == '.' else f'data_root + {inner!r}'

    # Parts that were set apart are COCO files, whatever the others are, which say
    # themselves where their images are.
    is_base = kind is None or split.ann_file.endswith('.json')
    kind = '' if is_base else f'type={kind!r}, '
    images = place(split.image_root) if is_base else "''"
    return (
        f'dict({kind}ann_file={place(split.ann_file)}, data_prefix=dict(img={images}))'
    )
