"""Detect in pictures, videos and cameras, from a checkpoint or an exported file."""

import argparse
import contextlib
import sys

from rfdetr_predict.__main__ import build_parser
from rfdetr_predict.__main__ import main as predict

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

MODEL = (
    'CONFIG CHECKPOINT, two words, or an exported file: .onnx, .xml (OpenVINO), .pt2 '
    'or .engine'
)
EXAMPLE = 'python tools/predict.py my_config.py epoch_10.pth pictures/ --save coco'
MORE = """\
With a config and a checkpoint the numbers are those of inference_detector; an exported
file needs neither PyTorch nor MMDetection: python -m rfdetr_predict does the same.
"""


def main() -> None:
    """Parse the arguments and detect."""
    parser = build_parser('python tools/predict.py', MODEL, EXAMPLE, MORE)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=cli.KeyValues,
        metavar='KEY=VALUE',
        help='change settings of the config, for example model.num_queries=100',
    )
    args = parser.parse_args()
    if not is_config(args.model):
        if args.cfg_options is not None:
            parser.error('--cfg-options are for a config')
        sys.exit(predict(parser=parser))
    config = cli.config_parser('', '').parse_args([args.model]).config
    cli.require_file(parser, config, 'config')
    if len(args.sources) < 2:
        parser.error('after a config come its checkpoint and then the sources')
    cli.require_file(parser, args.sources[0], 'checkpoint')
    # What takes seconds to import comes after the arguments.
    from mmdet_rfdetr.command_line import running

    with running.explained_errors():
        sys.exit(predict(parser=parser, open_model=open_checkpoint))


def is_config(model: str) -> bool:
    """Whether a model is named by its config, with the checkpoint to follow."""
    return model.endswith('.py') or model.startswith('mmdet_rfdetr::')


def open_checkpoint(args: argparse.Namespace):
    """Load the model of a config and the checkpoint that follows it.

    Args:
        args: of the command line; the checkpoint is taken off the sources.
    """
    from mmdet_rfdetr.command_line import running
    from mmdet_rfdetr.runtime import CheckpointModel

    checkpoint = args.sources.pop(0)
    config = cli.config_parser('', '')
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    cfg = running.load_config(config.parse_args([args.model, *options]))
    # mmengine says there that it loads, and --stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
        return CheckpointModel(cfg, checkpoint, args.device, args.resize, args.shape)


if __name__ == '__main__':
    main()
