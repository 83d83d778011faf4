"""Train on a folder of data: look at it, write a config for it, begin."""

import argparse
import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/train_on.py data/mine --dry-run
  python tools/train_on.py data/mine --model small --weights official --epochs 50
  python -m mmdet_rfdetr train-on data/mine --seg --model nano
  python -m mmdet_rfdetr train-on data/persons --pose --weights official

PATH is a folder in COCO, YOLO or Pascal VOC format, a CSV file of boxes, or the file
that describes one (data.yaml, a COCO JSON). What was found is shown as a table and a
picture. The config is yours: it is a few lines that inherit from a shipped one, and
what is printed with it trains again. Nothing that is there is overwritten.
"""


def main() -> None:
    """Parse the arguments, look at the data, and train."""
    parser = cli.tool_parser(__doc__, EXAMPLES)
    add_arguments(parser)
    args = parser.parse_args()
    if not Path(args.path).exists():
        parser.error(f'PATH {args.path!r} does not exist (looked from {Path.cwd()}).')
    if args.weights not in (None, 'official'):
        cli.require_file(parser, args.weights, 'weights')
    args.base = find_base(parser, args)
    if args.weights == 'official':
        args.weights = f'rfdetr://{official_name(args)}'
        if not args.dry_run:
            cli.require_file(parser, args.weights, 'weights')  # says what gets it
    elif args.weights is not None and '://' not in args.weights:
        args.weights = str(Path(args.weights).resolve())
    elif args.weights is None:
        print(
            'Training will begin with random weights, which needs many images and '
            'epochs; --weights official begins with those trained on COCO.'
        )
    args.config = args.config or own_name(args)
    if args.device is not None:
        # PyTorch looks at it once, when it is imported.
        os.environ['CUDA_VISIBLE_DEVICES'] = args.gpus = visible_gpus(args.device)

    # What takes seconds to import comes after the arguments.
    from mmdet_rfdetr.analysis import drawn_detections as drawing
    from mmdet_rfdetr.command_line.train_on import train_on

    def draw(samples, metainfo):
        classes = metainfo['classes']
        colours = drawing.class_colours(None, len(classes))
        more = dict(draw_points=draw_points(metainfo) if args.task == 'pose' else None)
        pictures = [
            drawing.draw_boxes(*each, classes, colours, **more) for each in samples
        ]
        rows = [pictures[start : start + 3] for start in range(0, len(pictures), 3)]
        return drawing.picture_grid(rows, ['annotated images', '', ''][: len(rows[0])])

    train_on(args, draw)


def draw_points(metainfo: dict) -> Callable:
    """What draws points and the lines that metainfo knows between them."""
    from mmdet_rfdetr.keypoint_results import RFDETRKeypointVisualizer

    visualizer = RFDETRKeypointVisualizer()
    visualizer.dataset_meta = metainfo
    return visualizer.draw_points


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this tool."""
    parser.add_argument('path', metavar='PATH', help='folder or file of the data')
    parser.add_argument(
        '--model',
        default='nano',
        metavar='NAME',
        help='nano, small, medium, ...: a config of the name rfdetr_NAME_coco.py '
        '(default: nano)',
    )
    task = parser.add_mutually_exclusive_group()
    for name, what in (('seg', 'masks'), ('pose', 'keypoints')):
        task.add_argument(
            f'--{name}',
            dest='task',
            action='store_const',
            const=name,
            help=f'learn {what}: rfdetr-{name}_NAME_coco.py',
        )
    parser.add_argument('--epochs', type=positive, metavar='N')
    parser.add_argument('--batch-size', type=positive, metavar='N')
    parser.add_argument(
        '--image-size', type=positive, metavar='N', help='side of the input in pixels'
    )
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='to begin with; "official" are those of the model, once they have been '
        'downloaded (default: random ones)',
    )
    parser.add_argument(
        '--device', type=device, metavar='DEVICE', help='cpu, cuda or cuda:1, ...'
    )
    parser.add_argument(
        '--config', metavar='FILE', help='to write (default: FOLDER_MODEL.py here)'
    )
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder for logs and results (default: work_dirs/<name of the config>)',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='write the config and train nothing'
    )
    cli.add_cfg_options(parser)


def positive(text: str) -> int:
    """A whole number of at least one."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
    return int(text)


def device(text: str) -> str:
    """The name of a device."""
    if not re.fullmatch(r'cpu|cuda(:\d+)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is none of cpu, cuda, cuda:0, ...')
    return text


def own_name(args: argparse.Namespace) -> str:
    """What the config is called unless that is said: by the data and the model."""
    folder = Path(os.path.abspath(args.path))
    folder = folder if folder.is_dir() else folder.parent
    folder = folder.parent if folder.name == 'annotations' else folder
    task = f'{args.task}-' if args.task else ''
    name = f'{folder.name or "data"}_{task}{args.model}'
    return re.sub(r'[^\w-]', '-', name) + '.py'


def official_name(args: argparse.Namespace) -> str:
    """Of the weights to begin with; poses begin with those of the detector."""
    if args.task == 'pose':
        return 'keypoint-preview' if args.model == 'preview' else args.model
    return f'seg-{args.model}' if args.task else args.model


def visible_gpus(name: str) -> str:
    """What CUDA_VISIBLE_DEVICES is, so that a run takes this device."""
    seen = os.environ.get('CUDA_VISIBLE_DEVICES')
    if name == 'cpu':
        return ''
    number = int(name.partition(':')[2] or 0)
    if seen is None:
        return str(number)
    return (seen.split(',')[number : number + 1] or [''])[0]


def find_base(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """The name of the shipped config of a model, or leave with the exit code 2."""
    start, end = f'rfdetr-{args.task}_' if args.task else 'rfdetr_', '_coco.py'
    names = sorted(
        path.name[len(start) : -len(end)]
        for path in cli.shipped_configs().glob(f'{start}*{end}')
    )
    if args.model not in names:
        close = difflib.get_close_matches(args.model, names, n=1)
        hint = (
            f'did you mean {close[0]}?' if close else f'choose from {", ".join(names)}'
        )
        task = f' with --{args.task}' if args.task else ''
        parser.error(f'there is no --model {args.model!r}{task}; {hint}')
    return f'{start}{args.model}{end}'


if __name__ == '__main__':
    main()
