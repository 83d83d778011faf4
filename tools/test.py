"""Evaluate a detector."""

from mmdet_rfdetr.command_line import (
    running as cli,  # first, before anything of MMDetection
)

# isort: split
import argparse
import copy
from pathlib import Path

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmdet_rfdetr.compat import operators
from mmdet_rfdetr.errors import MissingOpError

EXAMPLES = """\
  python tools/test.py configs/rfdetr_coco.py rf-detr-medium.pth
  python tools/test.py configs/rfdetr_demo.py work_dirs/rfdetr_demo/epoch_5.pth \\
      --show-dir drawn --out predictions.pkl
"""


class Dump(DumpDetResults):
    """MMDetection's dump, with the prefix that mmengine warns about when absent."""

    default_prefix = 'dump'


def main() -> None:
    """Parse the arguments and test."""
    parser = cli.build_parser('Evaluate a detector.', EXAMPLES)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file or link')
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='write the predictions to this pickle file'
    )
    parser.add_argument(
        '--show', action='store_true', help='show the predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='draw the predictions into <work-dir>/<time>/DIR',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long --show shows a picture (default: 2)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation; its default merges by the NMS of full mmcv',
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    cli.require_file(parser, args.checkpoint, 'checkpoint')
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, not {args.out!r}')

    cfg = cli.load_config(args)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    with cli.explained_errors():
        check_places(args)
        if args.tta:
            use_test_time_augmentation(cfg)

    def test(runner: Runner) -> None:
        if args.out is not None:
            runner.test_evaluator.metrics.append(Dump(out_file_path=args.out))
        runner.test()

    cli.run(cfg, test, trust_checkpoint=args.trust_checkpoint)


def check_places(args: argparse.Namespace) -> None:
    """See that all results can be written, before they are computed.

    Raises:
        ExplainedError: naming the place that cannot be written.
    """
    if args.out is not None and '://' not in args.out:
        cli.check_target(args.out)
    # A relative folder will lie in the work folder, which is looked at anyway.
    if args.show_dir is not None and Path(args.show_dir).is_absolute():
        cli.make_folder(args.show_dir)


def use_test_time_augmentation(cfg: Config) -> None:
    """Wrap the model and the test pipeline for test-time augmentation.

    The config's ``tta_model`` and ``tta_pipeline`` say how; without them every image
    is seen as it is and mirrored, and the boxes of both are merged by NMS.

    Args:
        cfg: The config, changed in place.

    Raises:
        MissingOpError: if mmcv has no NMS.
    """
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    if cfg.tta_model.get('type') == 'DetTTAModel' and not operators.has_compiled_ops():
        raise MissingOpError(
            '--tta, which merges boxes by NMS, needs compiled operators, which '
            f'mmcv-lite does not have; for full mmcv: {operators.FULL_MMCV}'
        )
    if 'tta_pipeline' not in cfg:
        *load_and_resize, pack = copy.deepcopy(dataset.pipeline)
        pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        augment = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.tta_pipeline = [*load_and_resize, augment]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


if __name__ == '__main__':
    main()
