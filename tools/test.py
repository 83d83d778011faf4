"""Evaluate a detector."""

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/test.py configs/rfdetr_coco.py rf-detr-medium.pth
  python tools/test.py configs/rfdetr_demo.py work_dirs/rfdetr_demo/epoch_5.pth \\
      --show-dir drawn --out predictions.pkl
  python tools/test.py my_config.py epoch_10.pth --tile 640 --overlap 0.2
  python tools/test.py my_config.py best.onnx --report report
"""


def main() -> None:
    """Parse the arguments and test."""
    parser = cli.build_parser('Evaluate a detector.', EXAMPLES)
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        type=cli.checkpoint_path,
        help='file or link, rfdetr://NAME for official weights; or an exported file, '
        'which is tested in place of the model',
    )
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
        '--report',
        metavar='DIR',
        help='write DIR/index.html: numbers of each class, curves, who is taken for '
        'whom, and the pictures with the worst errors',
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
        help='test-time augmentation: the image and its mirror image, unless the '
        'config says otherwise',
    )
    parser.add_argument(
        '--tile', type=int, metavar='SIDE', help='see pictures in tiles of SIDE pixels'
    )
    parser.add_argument(
        '--overlap',
        type=float,
        default=0.2,
        metavar='PART',
        help='part of a tile that neighbours share at least (default: 0.2)',
    )
    parser.add_argument(
        '--whole', action='store_true', help='with --tile: the whole picture besides'
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    cli.require_file(parser, args.checkpoint, 'checkpoint')
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, not {args.out!r}')

    if args.tile is not None and args.tta:
        parser.error('--tile and --tta are two ways to see a picture: choose one')
    # What takes seconds to import comes after the arguments.
    from mmdet_rfdetr.command_line import testing

    prepare = report = None
    if args.report is not None:
        from mmdet_rfdetr.runtime.reported import report_after as report
    if args.checkpoint.endswith(cli.EXPORTED):
        from mmdet_rfdetr.runtime.exported_file import use_file as prepare
    testing.test(args, prepare, report)


if __name__ == '__main__':
    main()
