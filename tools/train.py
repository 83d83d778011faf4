"""Train a detector."""

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/train.py configs/rfdetr_demo.py
  python tools/train.py configs/rfdetr_coco.py --work-dir work_dirs/first
  python tools/train.py configs/rfdetr_coco.py --resume
  python tools/train.py configs/rfdetr_nano_coco.py \\
      --cfg-options train_dataloader.batch_size=8
"""


def main() -> None:
    """Parse the arguments and train."""
    parser = cli.build_parser('Train a detector.', EXAMPLES)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='as in MMDetection; the precision is always that of model.precision, and '
        'a model in float32 refuses this option',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the images of an optimizer step (processes x '
        'batch size x accumulated batches), over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        type=cli.checkpoint_path,
        help='continue from this checkpoint, or without a value from the last one '
        'in the work folder, if there is one',
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    if args.resume not in (None, 'auto'):
        cli.require_file(parser, args.resume, 'checkpoint')

    # What takes seconds to import comes after the arguments.
    from mmdet_rfdetr.command_line import running

    cfg = running.load_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    running.prepare_auto_scale_lr(parser, cfg, enable=args.auto_scale_lr)
    if args.resume == 'auto':
        running.resume_latest(cfg)
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume

    def train(runner) -> None:
        if args.resume == 'auto' and not cfg.resume:
            runner.logger.info(
                f'There is nothing to resume in {cfg.work_dir}: training begins with '
                f'{cfg.load_from or "new weights"}.'
            )
        running.train(runner)

    running.run(cfg, train, trust_checkpoint=args.trust_checkpoint)


if __name__ == '__main__':
    main()
