"""What ``tools/train_on.py`` does: from a folder of data to a run."""

import argparse
import json
import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rfdetr_datasets import DatasetError, Found, Split, find_dataset
from rfdetr_predict.progress import watched

from ..class_names import match_classes, show_classes
from ..errors import BadDataError, SettingError
from . import overview, running
from .config_errors import merge_options
from .own_config import config_text

SEED, PART = 0, 0.2
"""Of the images that are set apart where there is no split for validation."""

UNSAID = dict(
    yolo='YOLO says nothing of crowd regions and objects to ignore.',
    voc='VOC says nothing of masks and crowd regions.',
    csv='CSV says nothing of masks and crowds, nor of images without a row.',
)
"""What a format has no words for."""


def train_on(args: argparse.Namespace, draw: Callable) -> None:
    """Look at data, write a config for them, and train with it.

    Args:
        args: of the tool; ``base`` names the shipped config.
        draw: makes a picture of what :func:`overview.samples` yields, and of the
            metainfo.
    """
    with running.explained_errors():
        if args.device not in (None, 'cpu') and not torch.cuda.is_available():
            raise SettingError(f'--device {args.device}: PyTorch sees no such GPU.')
        try:
            found = find_dataset(args.path)
            check_classes(found)
            parts = set_apart(found, Path(args.config))
            text = config_text(args, found, command(args))
        except DatasetError as error:
            raise BadDataError(str(error)) from error
        picture = Path(args.config).with_suffix('.png')
        check_places(args, {Path(args.config): text, **parts}, picture)
        for path, part in parts.items():
            path.write_text(part, encoding='utf-8')
        look(args, text, found, draw, picture)
        Path(args.config).write_text(text, encoding='utf-8')
        if parts:
            print(
                f'There is no split for validation: {PART:.0%} of the images, drawn '
                f'with seed {SEED}, are set apart in {" and ".join(map(str, parts))}.'
            )
        print(f'Annotated images: {picture}')
        print(f'Config: {args.config}. To train with it again:\n  {command(args)}')
        if args.dry_run:
            return
        cfg = running.load_config(args)
    running.run(cfg, running.train, trust_checkpoint=False)


def check_classes(found: Found) -> None:
    """Read the splits, and see that none has objects of classes that are not trained.

    Raises:
        BadDataError: naming the split and the classes; or nothing is to be trained on.
    """
    if 'train' not in found.splits:
        there = ', '.join(found.splits)
        raise BadDataError(f'{found.path} has no split for training, only {there}.')
    categories = found.splits['train'].document(watched)['categories']
    trained = [str(each.get('name')) for each in categories]
    for name, split in found.splits.items():
        document = split.document(watched)
        used = {str(each.get('category_id')) for each in document['annotations']}
        names = {
            str(each.get('id')): each.get('name') for each in document['categories']
        }
        match = match_classes(
            trained, [str(names[key]) for key in names if key in used]
        )
        # Other formats list no classes but those of their objects.
        if match.unused and (found.format == 'coco' or match.misspelt):
            raise BadDataError(
                f'The classes of the splits differ: {split.ann_file} ({name}) has '
                f'objects of {show_classes(match.unused)}, and the training data have '
                f'{show_classes(trained)}. {match.suggestion()}'.rstrip()
            )


def set_apart(found: Found, target: Path) -> dict[Path, str]:
    """Set a part of the training images apart where there is no validation split.

    It is the same part each time. Both are COCO files beside the config, so that data
    set and metric read the same.

    Args:
        found: the data; its splits are changed.
        target: path of the config.

    Returns:
        The texts to write, by path.

    Raises:
        BadDataError: there is too little to set a part apart.
    """
    if 'val' in found.splits:
        return {}
    train = found.splits['train']
    document = train.document()
    # Copies of one image that Roboflow has changed stay together.
    origins = {
        str(image.get('id')): re.sub(r'\.rf\.\w+', '', str(image.get('file_name')))
        for image in document['images']
    }
    names = sorted(set(origins.values()))
    if len(names) < 2:
        raise BadDataError(
            f'{train.ann_file} has {len(names)} images, and two are needed where there '
            'is no split for validation.'
        )
    drawn = set(random.Random(SEED).sample(names, max(1, round(PART * len(names)))))
    parts = {}
    for name in ('train', 'val'):
        part = {
            kind: [
                each
                for each in document[kind]
                if (origins.get(str(each.get(key))) in drawn) == (name == 'val')
            ]
            for kind, key in (('images', 'id'), ('annotations', 'image_id'))
        }
        part = document | part
        path = target.resolve().with_name(f'{target.stem}_{name}.json')
        parts[path] = json.dumps(part)
        found.splits[name] = Split(str(path), train.image_root, _document=part)
    return parts


def command(args: argparse.Namespace) -> str:
    """The command that trains with the config that was written."""
    words = ['python', '-m', 'mmdet_rfdetr', 'train', args.config]
    words += ['--work-dir', args.work_dir] if args.work_dir else []
    words += ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    hidden = '' if args.device is None else f'CUDA_VISIBLE_DEVICES={args.gpus} '
    return hidden + shlex.join(words)


def check_places(
    args: argparse.Namespace, files: dict[Path, str], picture: Path
) -> None:
    """See that nothing is lost, and that all can be written.

    Args:
        args: with the paths of the config and the work folder.
        files: texts to be written, that of the config first.
        picture: is replaced with its config.

    Raises:
        SettingError: something else is there already.
        ExplainedError: a place cannot be written.
    """
    target = next(iter(files))
    there = [picture] * (picture.exists() and not target.exists())
    for path, text in files.items():
        running.check_target(path)
        if path.exists() and path.read_text(encoding='utf-8') != text:
            there.append(path)
    if there:
        raise SettingError(
            f'{there[0]} is there, and not what would be written: name another config '
            f'by --config, or train with the one that is there by {command(args)}'
        )
    if args.dry_run:
        return
    work_dir = Path(args.work_dir or Path('work_dirs', target.stem))
    running.make_folder(work_dir)
    if any(work_dir.iterdir()):
        raise SettingError(
            f'{work_dir} is not empty: name another by --work-dir, or go on with the '
            f'run in it by {command(args)} --resume'
        )


def look(
    args: argparse.Namespace, text: str, found: Found, draw: Callable, picture: Path
) -> None:
    """Build the data sets of a config, and show what they hold.

    Args:
        args: of the tool.
        text: of the config.
        found: the data.
        draw: see :func:`train_on`.
        picture: file for annotated images.

    Raises:
        SettingError: the config asks for more than the data have.
    """
    cfg = Config.fromstring(text, '.py')
    merge_options(running.key_values(args.cfg_options), cfg)
    init_default_scope(cfg.default_scope)
    datasets = {
        split: DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        for split in found.splits
    }
    columns = {split: overview.count(each) for split, each in datasets.items()}
    print(f'\n{args.path}: {found.format}, {len(found.classes)} classes')
    print(f'\n{overview.table(columns, found.classes)}')
    print(*found.notes, UNSAID.get(found.format, ''), sep='\n')
    figures, batch = columns['train'][0], cfg.train_dataloader.batch_size
    if figures['images'] < batch:
        raise SettingError(
            f'A training step takes {batch} images and there are {figures["images"]}: '
            f'--batch-size {figures["images"]}'
        )
    if args.task == 'seg' and not figures['with a mask']:
        raise SettingError('--seg learns masks, and the objects have boxes only.')
    pipeline = cfg.val_dataloader.dataset.pipeline
    loads = next(x for x in pipeline if x.type.endswith(('Annotations', 'Keypoints')))
    train = datasets['train']
    draw(overview.samples(train, loads), train.metainfo).save(picture)
