"""Export a sub-net of a super-net as an ordinary model."""

import contextlib

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/export_subnet.py configs/rfdetr_search_coco.py \\
      work_dirs/rfdetr_search_coco/epoch_100.pth s480-p12-w2-d3-q200 exported

Writes exported/s480-p12-w2-d3-q200.py and .pth: size, patch size, windows, decoder
layers and queries. They train on, test, deploy and convert like any other config and
checkpoint.
"""


def main() -> None:
    """Parse the arguments and export."""
    parser = cli.config_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        type=cli.checkpoint_path,
        help='checkpoint of CONFIG, or rfdetr://NAME for official weights',
    )
    parser.add_argument('subnet', metavar='SUBNET', help='as s480-p12-w2-d3-q200')
    parser.add_argument('out', metavar='OUT', help='folder of the two files')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let code in CHECKPOINT run while it is loaded; only for files you made',
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    cli.require_file(parser, args.checkpoint, 'checkpoint')

    from mmdet_rfdetr.checkpoints import trust_checkpoint
    from mmdet_rfdetr.command_line import running
    from mmdet_rfdetr.search import Subnet
    from mmdet_rfdetr.search.export import export_subnet

    trust = trust_checkpoint() if args.trust_checkpoint else contextlib.nullcontext()
    with running.explained_errors(), trust:
        subnet = Subnet.parse(args.subnet)
        cfg = running.load_config(args)
        paths = export_subnet(cfg, args.checkpoint, subnet, args.out)
    print(f'{subnet.name}: {" and ".join(map(str, paths))}')


if __name__ == '__main__':
    main()
