"""Write a file for another runtime, and see that it is the model."""

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/export.py configs/rfdetr_nano_coco.py rf-detr-nano.pth
  python tools/export.py my_config.py best.pth --to openvino --batch dynamic
  python tools/export.py my_config.py best.pth --layout detections --shape 480 640
  python tools/export.py my_config.py best.pth --precision int8 --to openvino \\
      --calibrate 100 --evaluate

The file runs in its runtime beside the model before it gets its name; what differs by
more than its precision may is removed, and the exit code is 1. docs/deployment.md says
which file is for which reader.
"""
LAYOUTS = {
    'official': 'names, order and meaning of the official file: dets, labels, masks',
    'detections': 'pixels (uint8) in, final boxes, scores, labels and masks out',
    'mmdeploy': "MMDeploy's: final boxes with scores, in pixels of the input",
    'deepstream': 'one output of rows x1 y1 x2 y2 score class',
}


def batch(text: str) -> int | None:
    """A number of images, None for ``dynamic``."""
    return None if text == 'dynamic' else int(text)


def main() -> None:
    """Parse the arguments and export."""
    parser = cli.config_parser('Export a trained model to a file.', EXAMPLES)
    add = parser.add_argument
    add(
        'checkpoint',
        metavar='CHECKPOINT',
        type=cli.checkpoint_path,
        help='file of the weights, or rfdetr://NAME for an official one',
    )
    add('--to', choices=('onnx', 'openvino', 'pt2'), default='onnx')
    add(
        '--layout',
        choices=LAYOUTS,
        default='official',
        help='; '.join(f'{name}: {what}' for name, what in LAYOUTS.items()),
    )
    add(
        '--batch',
        type=batch,
        default=1,
        metavar='N',
        help='images of a call, or "dynamic" (default: 1)',
    )
    add(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the input (default: that of the test pipeline)',
    )
    add('--precision', choices=('fp32', 'fp16', 'int8'), default='fp32')
    add(
        '--calibrate',
        type=int,
        default=30,
        metavar='N',
        help='pictures that int8 is calibrated with (default: 30)',
    )
    add('--notes', default='', help='words to keep in the file')
    add('--out', metavar='FILE', help='default: beside the checkpoint, named like it')
    add(
        '--evaluate',
        action='store_true',
        help='measure the mAP of the file beside that of the model, on the test data',
    )
    add(
        '--trust-checkpoint',
        action='store_true',
        help='load a checkpoint that holds more than weights; code in it can run',
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    cli.require_file(parser, args.checkpoint, 'checkpoint')
    if '://' in args.checkpoint:
        parser.error(
            f'{args.checkpoint}: download it first; its hash goes into the file'
        )

    # What takes seconds to import comes after the arguments.
    from contextlib import nullcontext
    from pathlib import Path

    from mmdet_rfdetr.command_line import running

    trust = nullcontext()
    with running.explained_errors():
        from mmdet_rfdetr.checkpoints import trust_checkpoint
        from mmdet_rfdetr.deploy import exporting, settings
        from mmdet_rfdetr.runtime.exported_file import evaluate

        if args.trust_checkpoint:
            trust = trust_checkpoint()
        names = ('to', 'layout', 'batch', 'precision', 'calibrate', 'notes')
        options = settings.Options(
            shape=args.shape and tuple(args.shape),
            **{name: getattr(args, name) for name in names},
        )
        target = args.out or settings.default_target(args.checkpoint, options)
        running.check_target(target)
    cfg = running.load_config(args)
    with running.explained_errors(), trust:
        exporting.export(
            cfg,
            args.checkpoint,
            target,
            options,
            config_name=Path(args.config).name,
            evaluate=evaluate if args.evaluate else None,
        )
        print(f'wrote {target}')


if __name__ == '__main__':
    main()
