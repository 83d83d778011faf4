"""Evaluate official weights on COCO val2017, beside the figures published with them."""

import argparse
from pathlib import Path

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/verify.py nano --coco data/coco
  python tools/verify.py seg-nano --coco data/coco --work-dir work_dirs/verified
  python tools/verify.py my_config.py --weights best.pth --published 48.4 67.6

The weights have to be there: python -m mmdet_rfdetr weights get nano. COCO's folder
has annotations/instances_val2017.json and val2017/. The model runs as tools/test.py
runs it.
"""


def main() -> None:
    """Parse the arguments and evaluate."""
    parser = cli.build_parser(
        __doc__,
        EXAMPLES,
        metavar='NAME',
        help='of official weights, as in the list of tools/weights.py; or the path of '
        'a config, with --weights',
    )
    parser.add_argument(
        '--coco',
        default='data/coco',
        metavar='DIR',
        help='folder of COCO (default: data/coco)',
    )
    parser.add_argument(
        '--weights',
        type=cli.checkpoint_path,
        metavar='FILE',
        help='another file (default: the one that was downloaded)',
    )
    parser.add_argument(
        '--published',
        nargs=2,
        type=float,
        metavar=('AP', 'AP50'),
        help='figures to compare with, in percent (default: those of NAME)',
    )
    args = parser.parse_args()
    if args.config.endswith('.py'):
        cli.require_file(parser, args.config, 'config')
        if args.weights is None:
            parser.error('a config needs --weights FILE')
    else:
        use_official(parser, args)
    cli.require_file(parser, args.weights, 'checkpoint')
    objects = 'person_keypoints' if '-pose_' in args.config else 'instances'
    annotations = str(Path(args.coco, 'annotations', f'{objects}_val2017.json'))
    cli.require_file(parser, annotations, 'annotation file of COCO')
    # What takes seconds to import comes after the arguments.
    from mmdet_rfdetr.command_line import verifying

    verifying.verify(args)


def use_official(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Find config, weights and published figures of a name.

    Args:
        parser: leaves with what is not there.
        args: changed in place.
    """
    try:
        entry = cli.light_part('official_weights').find_entry(args.config)
        if not entry.configs:
            parser.error(f'no config takes {entry.name}: {entry.note}')
        args.config = cli.config_path(f'mmdet_rfdetr::{entry.configs[0]}')
        args.weights = args.weights or cli.checkpoint_path(f'rfdetr://{entry.name}')
    except (FileNotFoundError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    if args.published is None and entry.published:
        args.published = [entry.published[name] for name in ('AP', 'AP50')]


if __name__ == '__main__':
    main()
