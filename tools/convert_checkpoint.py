"""Convert a checkpoint between the official format and MMDetection's."""

import contextlib

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/convert_checkpoint.py rf-detr-nano.pth rfdetr_nano.pth
  python tools/convert_checkpoint.py work_dirs/rfdetr_coco/epoch_12.pth \\
      finetuned.pth --to official
  python tools/convert_checkpoint.py rf-detr-nano.pth rfdetr_nano.safetensors
"""


def main() -> None:
    """Parse the arguments and convert."""
    parser = cli.tool_parser(
        'Convert a checkpoint between the official format and '
        "MMDetection's. All weights are kept as they are; training states are left "
        'out. (Official files need no conversion to be loaded.)',
        EXAMPLES,
    )
    parser.add_argument(
        'source',
        metavar='SRC',
        type=cli.checkpoint_path,
        help='checkpoint to convert, rfdetr://NAME for an official one',
    )
    parser.add_argument(
        'target', metavar='DST', help='file to write: .pth, .pt or .safetensors'
    )
    parser.add_argument(
        '--to',
        choices=('official', 'mmdet'),
        help='format of DST (default: the one SRC has not)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace DST if it exists'
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let code in SRC run while it is loaded; only for files you made',
    )
    args = parser.parse_args()
    cli.require_file(parser, args.source, 'checkpoint')

    from mmdet_rfdetr.checkpoints import trust_checkpoint
    from mmdet_rfdetr.command_line import running
    from mmdet_rfdetr.formats.convert import convert_checkpoint

    trust = trust_checkpoint() if args.trust_checkpoint else contextlib.nullcontext()
    with running.explained_errors(), trust:
        done = convert_checkpoint(
            args.source, args.target, to=args.to, overwrite=args.overwrite
        )
        print(done)


if __name__ == '__main__':
    main()
