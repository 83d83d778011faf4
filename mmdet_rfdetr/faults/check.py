"""Look at every annotation and decode every image of a config's data sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..data.images import decode_image, naming_faults
from ..errors import BadDataError
from .bad_data_hook import coco_parts
from .coco_dataset import CheckedCocoDataset
from .findings import Finding, Findings, finding_of
from .image_files import in_threads

SPLITS = ('train', 'val', 'test')


def check_config(cfg: Config) -> Iterator[tuple[str, Findings]]:
    """Check all data sets of a config; one that two splits share, once.

    Args:
        cfg: a whole config.

    Yields:
        The splits, ``'val, test'``, and what was found.

    Raises:
        BadDataError: if a data set cannot be used at all, or is none of ours.
        FileNotFoundError: if its annotation file, or every image, is missing.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    configs = {
        split: (cfg.get(f'{split}_dataloader') or {}).get('dataset') for split in SPLITS
    }
    for first, dataset_cfg in configs.items():
        names = [split for split in SPLITS if configs[split] == dataset_cfg]
        if dataset_cfg is None or names[0] != first:
            continue
        # Faults are reported, not raised.
        dataset = DATASETS.build(
            _with_settings(dataset_cfg, bad_data='skip', check_images=True)
        )
        parts = list(coco_parts(dataset))
        if not parts:
            raise BadDataError(
                f'The {first} data set is a {type(dataset).__name__}; what can be '
                "checked is type='RFDETRCocoDataset'."
            )
        for part in parts:
            for label, name in enumerate(part.metainfo['classes']):
                if label not in part.cat2label.values():
                    part.findings.add(Finding.CLASS_MISSING, str(name))
            decode_all(part)
            yield ', '.join(names), part.findings


def _with_settings(value: Any, **settings) -> Any:
    """The config of a data set, or of wrappers around some, with settings changed.

    Only those that are there: wrappers, and data sets of other types, know them not.
    """
    if isinstance(value, (list, tuple)):
        return [_with_settings(item, **settings) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: settings.get(key, _with_settings(item, **settings))
        for key, item in value.items()
    }


def decode_all(dataset: CheckedCocoDataset) -> None:
    """Decode every image and add those that fail to the findings.

    Args:
        dataset: what to look at.
    """

    def decode(info: dict) -> None:
        with naming_faults():
            data = fileio.get(info['img_path'], dataset.image_backend)
            decode_image(data, (info['height'], info['width']), dataset.reading)

    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    for info, error in zip(infos, in_threads(decode, infos), strict=True):
        if error is not None:
            dataset.findings.add(finding_of(error), Path(info['img_path']).name)
