"""Find the sub-nets of a super-net that are worth their time on this device."""

import argparse
import contextlib

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/search.py configs/rfdetr_search_coco.py epoch_100.pth \\
      --work-dir found --dry-run
  python tools/search.py configs/rfdetr_search_coco.py epoch_100.pth \\
      --work-dir found --device cuda --images 500 --holdout other.json --budget-ms 5
  python tools/search.py configs/rfdetr_search_demo.py epoch_12.pth \\
      --work-dir found --clock cpu --pause 0 --processes 2

Evaluates on val_dataloader; the same command goes on where it was stopped. DIR gets
subnets.jsonl, pareto.json, pareto.png, report.md, and in front/ the exported models.
"""


def main() -> None:
    """Parse the arguments and search."""
    parser = cli.config_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add(
        'checkpoint',
        metavar='CHECKPOINT',
        type=cli.checkpoint_path,
        help='checkpoint of CONFIG',
    )
    add(
        '--work-dir',
        metavar='DIR',
        help="folder of the results (default: search in the config's work_dir, or in "
        'work_dirs/<name of the config>)',
    )
    add(
        '--images',
        type=int,
        metavar='N',
        help='rank all sub-nets on N images first, and evaluate on all images what '
        'could still be of the front',
    )
    add(
        '--holdout',
        metavar='ANN',
        help='annotations of images that the search must not see; the front is tested '
        'on them (default: test_dataloader, if it has other images)',
    )
    add(
        '--holdout-images',
        metavar='DIR',
        help='folder of their images (default: that of test_dataloader)',
    )
    add(
        '--baseline',
        metavar='FILE',
        help='checkpoint of the home model, trained in the ordinary way, for the plot',
    )
    add(
        '--earlier',
        metavar='FILE',
        help='earlier checkpoint of the run, to see whether the order has settled '
        '(default: the last one that lies beside CHECKPOINT)',
    )
    add(
        '--budget-ms',
        type=float,
        metavar='X',
        help='name the best sub-net that takes so many milliseconds at most',
    )
    add('--device', default='cpu', help='cpu, cuda or cuda:N (default: cpu)')
    add(
        '--processes',
        type=int,
        default=1,
        metavar='N',
        help='evaluate by so many; with --device cuda each on a GPU (default: 1)',
    )
    add(
        '--threads',
        type=int,
        default=1,
        metavar='N',
        help='threads of each process (default: 1)',
    )
    add(
        '--clock',
        choices=('wall', 'cpu'),
        default='wall',
        help='of latencies; cpu is the time of this process alone, for busy machines',
    )
    add(
        '--pause',
        type=float,
        default=0.2,
        metavar='SECONDS',
        help='between two passes that are timed (default: 0.2)',
    )
    add(
        '--rounds',
        type=int,
        default=10,
        metavar='N',
        help='passes of each model that are timed (default: 10)',
    )
    add(
        '--dry-run',
        action='store_true',
        help='say what the search will take, and do nothing',
    )
    add(
        '--trust-checkpoint',
        action='store_true',
        help='let code in CHECKPOINT run while it is loaded; only for files you made',
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    for name in ('checkpoint', 'holdout', 'baseline', 'earlier'):
        if (path := getattr(args, name)) is not None:
            cli.require_file(parser, path, name)
    for name in ('images', 'processes', 'threads', 'rounds'):
        if (number := getattr(args, name)) is not None and number < 1:
            parser.error(f'--{name} {number}: give 1 or more')
    search(args)


def search(args: argparse.Namespace) -> None:
    """Do what was asked for."""
    # What takes seconds to import comes after the arguments.
    from pathlib import Path

    from mmdet_rfdetr.checkpoints import trust_checkpoint
    from mmdet_rfdetr.command_line import running
    from mmdet_rfdetr.runtime.measuring import Measurement
    from mmdet_rfdetr.search import finishing
    from mmdet_rfdetr.search.planning import plan
    from mmdet_rfdetr.search.running import Search

    trust = trust_checkpoint() if args.trust_checkpoint else contextlib.nullcontext()
    cfg = running.load_config(args)
    args.work_dir = args.work_dir or str(Path(cfg.work_dir, 'search'))
    with running.explained_errors(), trust:
        search = Search(cfg, args, Measurement)
        if args.dry_run:
            print(plan(search).describe())
            return
        running.make_folder(args.work_dir)
        finishing.finish(search, *search.run())
    print(Path(args.work_dir, 'report.md').read_text())


if __name__ == '__main__':
    main()
