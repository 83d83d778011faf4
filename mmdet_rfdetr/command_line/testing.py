"""What ``tools/test.py`` does with its arguments."""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from ..compat import operators
from ..errors import MissingOpError
from . import running


class Dump(DumpDetResults):
    """MMDetection's dump, with the prefix that mmengine warns about when absent."""

    default_prefix = 'dump'


def test(
    args: argparse.Namespace,
    prepare: Callable[[Config, str], None] | None = None,
    report: Callable[[Runner, str, dict[str, str]], None] | None = None,
) -> None:
    """Evaluate, draw, dump and report.

    Args:
        args: of the tool.
        prepare: makes a config test the file that is named as its checkpoint; None
            loads it as weights.
        report: has a runner write ``args.report``, with facts for its top.
    """
    cfg = running.load_config(args)
    cfg.load_from = args.checkpoint
    if prepare is not None:
        with running.explained_errors():
            prepare(cfg, args.checkpoint)
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    with running.explained_errors():
        check_places(args)
        if args.tta:
            use_test_time_augmentation(cfg)
        if args.tile is not None:
            use_tiles(cfg, args.tile, args.overlap, args.whole)

    def run(runner: Runner) -> None:
        if report is not None:
            report(runner, args.report, facts_of(args))
        if args.out is not None:
            runner.test_evaluator.metrics.append(Dump(out_file_path=args.out))
        runner.test()

    running.run(cfg, run, trust_checkpoint=args.trust_checkpoint)


def facts_of(args: argparse.Namespace) -> dict[str, str]:
    """What a report says of a test at its top."""
    facts = dict(Config=args.config, Checkpoint=args.checkpoint)
    if args.tta:
        facts['Seen'] = 'with test-time augmentation'
    if args.tile is not None:
        facts['Seen'] = f'in tiles of {args.tile}'
    return facts


def check_places(args: argparse.Namespace) -> None:
    """See that all results can be written, before they are computed.

    Raises:
        ExplainedError: naming the place that cannot be written.
    """
    if args.out is not None and '://' not in args.out:
        running.check_target(args.out)
    # A relative folder will lie in the work folder, which is looked at anyway.
    if args.show_dir is not None and Path(args.show_dir).is_absolute():
        running.make_folder(args.show_dir)


def dataset_of(cfg: Config) -> ConfigDict:
    """The config of the data that are tested, without what is wrapped around it."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def use_test_time_augmentation(cfg: Config) -> None:
    """Wrap the model and the test pipeline for test-time augmentation.

    The config's ``tta_model`` and ``tta_pipeline`` say how; without them every image
    is seen as it is and mirrored, and what is one object is joined without NMS.

    Args:
        cfg: The config, changed in place.

    Raises:
        MissingOpError: the config asks for merging by an NMS that mmcv lacks.
    """
    dataset = dataset_of(cfg)
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(type='RFDETRMirrorTTA')
    if cfg.tta_model.get('type') == 'DetTTAModel' and not operators.has_compiled_ops():
        raise MissingOpError(
            'tta_model.type=DetTTAModel merges boxes by NMS and needs compiled '
            'operators, which mmcv-lite does not have: leave it out for one that needs '
            f'none, or, for full mmcv: {operators.FULL_MMCV}'
        )
    if 'tta_pipeline' not in cfg:
        *load_and_resize, pack = copy.deepcopy(dataset.pipeline)
        pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        augment = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.tta_pipeline = [*load_and_resize, augment]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def use_tiles(cfg: Config, tile: int, overlap: float, whole: bool) -> None:
    """Have pictures seen in tiles.

    Args:
        cfg: changed in place: the model, and the pipeline of the test data, of which
            the first step loads the picture.
        tile: side of the tiles in pixels.
        overlap: part of it that neighbours share at least.
        whole: see the whole picture besides.
    """
    dataset = dataset_of(cfg)
    load, *rest = dataset.pipeline
    cut = dict(tile=tile, overlap=overlap, whole=whole)
    dataset.pipeline = [load, dict(type='RFDETRTiles', transforms=rest, **cut)]
    cfg.model = ConfigDict(type='RFDETRTiledModel', module=cfg.model)
