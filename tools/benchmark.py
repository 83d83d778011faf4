"""Measure speed: latency, training, loader, metric, checkpoints, or the start."""

import argparse
import os
import tempfile
from pathlib import Path

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

OFFICIAL_PYTHON = 'RFDETR_OFFICIAL_PYTHON'
TASKS = ('latency', 'training', 'loader', 'metric', 'checkpoint', 'startup')
EXAMPLES = f"""\
  python tools/benchmark.py configs/rfdetr_nano_coco.py --checkpoint nano.pth
  python tools/benchmark.py configs/rfdetr_nano_coco.py configs/rfdetr_small_coco.py
  {OFFICIAL_PYTHON}=OFFICIAL_VENV/bin/python \\
      python tools/benchmark.py configs/rfdetr_nano_coco.py --official RFDETRNano
  python tools/benchmark.py configs/rfdetr_nano_coco.py --task training \\
      --batch-size 2 --dtype bfloat16
  python tools/benchmark.py my_config.py --checkpoint best.pth \\
      --exported best.onnx best_openvino_model/best.xml
  python tools/benchmark.py configs/rfdetr_nano_coco.py --task metric --images 5000
  python tools/benchmark.py configs/rfdetr_nano_coco.py --deploy --cuda-graphs \\
      --device cuda --dtype bfloat16

Protocol: every side is a process of its own, warmed up; the sides take turns, and the
ratio is taken round by round. Latency goes from a file to detections in its pixels, of
the model that would be tested, at --batch-size. With --threads 1 --clock cpu a busy
machine does not matter much; wall time needs an idle one.
"""


def build_parser() -> argparse.ArgumentParser:
    """The tool's arguments."""
    parser = cli.tool_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add('configs', metavar='CONFIG', nargs='+', help='one or two config files')
    add('--task', choices=TASKS, default='latency', help='default: latency')
    add('--official', metavar='CLASS', help='compare with this class of rfdetr')
    add(
        '--official-python',
        metavar='PYTHON',
        default=os.environ.get(OFFICIAL_PYTHON),
        help=f'its interpreter (default: ${OFFICIAL_PYTHON})',
    )
    add(
        '--checkpoint',
        default='',
        type=cli.checkpoint_path,
        help='weights of all sides (default: random)',
    )
    add(
        '--exported',
        metavar='FILE',
        nargs='+',
        default=[],
        help='compare with exported files, which take the place of its model',
    )
    add('--batch-size', type=int, default=1, metavar='N')
    add('--rounds', type=int, default=9, metavar='N', help='turns of each side')
    add('--samples', type=int, metavar='N', help='of a turn (default: by task)')
    add('--warmup', type=int, default=3, metavar='N', help='samples not counted')
    add('--pause', type=float, default=0.0, metavar='S', help='seconds after a turn')
    add('--threads', type=int, default=0, metavar='N', help="default: torch's choice")
    add('--clock', choices=('wall', 'cpu'), default='wall')
    add('--device', default='cpu', help='for example cuda:0 (default: cpu)')
    add(
        '--dtype',
        choices=('config', 'float32', 'bfloat16', 'float16'),
        default='float32',
        help="precision of the network, or the config's (default: float32)",
    )
    add('--deploy', action='store_true', help='switch_to_deploy() before latency')
    add(
        '--cuda-graphs',
        action='store_true',
        help='with --deploy on a GPU: switch_to_deploy(cuda_graphs=True)',
    )
    add(
        '--official-compile',
        action='store_true',
        help='--task training on a GPU: its torch.compile with CUDA graphs',
    )
    add('--images', type=int, metavar='N', help='pictures to draw (default: by task)')
    add('--boxes', type=int, default=20, metavar='N', help='objects of an image')
    add('--detections', type=int, default=300, metavar='N', help='of --task metric')
    add('--data', help='folder of JPEGs and annotations.json, instead of drawn ones')
    add('--out-dir', type=Path, metavar='DIR', help='write result.json and result.png')
    add('--cfg-options', nargs='+', action=cli.KeyValues, metavar='KEY=VALUE')
    return parser


def main() -> None:
    """Parse the arguments, measure and report."""
    parser = build_parser()
    args = parser.parse_args()
    for config in args.configs:
        cli.require_file(parser, config, 'config')
    for file in args.exported:
        cli.require_file(parser, file, 'exported file')
    if args.official and not args.official_python:
        parser.error(f'--official needs --official-python, or set {OFFICIAL_PYTHON}')
    if args.official and args.task in ('metric', 'checkpoint', 'startup'):
        other = 'PyTorch' if args.task == 'checkpoint' else 'MMDetection'
        parser.error(f'--task {args.task} compares with {other}: leave out --official')
    on_gpu = args.device.startswith('cuda')
    if on_gpu and args.task == 'startup':
        parser.error('--task startup is measured on the CPU: leave out --device')
    if on_gpu and args.clock == 'cpu':
        parser.error('--clock cpu does not see a GPU: leave it out with --device cuda')
    if args.cuda_graphs and not (args.deploy and on_gpu):
        parser.error('--cuda-graphs needs --deploy and --device cuda')
    if args.exported and len(args.configs) > 1:
        parser.error('--exported compares with one config')
    if args.exported and (args.task != 'latency' or on_gpu):
        parser.error('--exported needs --task latency and --device cpu')
    if args.official_compile and not args.official:
        parser.error('--official-compile needs --official')
    if args.official_compile and not (args.task == 'training' and on_gpu):
        parser.error('--official-compile needs --task training and --device cuda')
    check_numbers(parser, args)
    check_places(parser, args)
    # What takes seconds to import comes after the arguments.
    from mmdet_rfdetr.benchmark.compare import compare
    from mmdet_rfdetr.command_line import running
    from mmdet_rfdetr.errors import ExplainedError

    # isort: split
    import torch

    if args.device.startswith('cuda') and not torch.cuda.is_available():
        parser.error(f'--device {args.device}: PyTorch finds no GPU')
    try:
        if args.out_dir is not None:
            running.make_folder(args.out_dir)
        args.cfg_options = running.key_values(args.cfg_options)
    except ExplainedError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder, running.explained_errors():
        if args.exported:
            from mmdet_rfdetr.runtime.exported_file import write_config

            changes = args.configs[0], args.cfg_options, folder
            args.configs = [
                write_config(*changes, file, args.threads or None)
                for file in (None, *args.exported)
            ]
            args.cfg_options = {}
        compare(args)


def check_numbers(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Leave with a one-line error if a number is out of its range."""
    if len(args.configs) > 2:
        parser.error(f'compares one or two configs, not {len(args.configs)}')
    least = dict.fromkeys(('batch_size', 'rounds', 'boxes', 'detections'), 1)
    least.update(samples=1, images=1, warmup=0, pause=0, threads=0)
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            parser.error(f'--{name} must be {bound} or more'.replace('_', '-'))


def check_places(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Leave with a one-line error if there are no pictures, or no such device."""
    if args.data is not None and not any(Path(args.data).glob('*.jpg')):
        parser.error(f'--data {args.data}: there are no .jpg files')
    if args.device.partition(':')[0] not in ('cpu', 'cuda', 'mps', 'npu', 'xpu'):
        parser.error(f'--device {args.device}: name cpu, or cuda:0')


if __name__ == '__main__':
    main()
