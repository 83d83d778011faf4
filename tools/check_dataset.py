"""Check the data sets of a config: every annotation, every image."""

import sys

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/check_dataset.py configs/rfdetr_nano_bccd.py
  python tools/check_dataset.py configs/rfdetr_coco.py \\
      --cfg-options train_dataloader.dataset.data_root=data/mine/

Prints a table for each data set. The exit status is 1 if there is any fault, or if
the data sets have different classes.
"""


def main() -> int:
    """Parse the arguments and check.

    Returns:
        0 if there is no fault, 1 if there is one.
    """
    parser = cli.config_parser(__doc__, EXAMPLES)
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')

    from mmdet_rfdetr.command_line import running
    from mmdet_rfdetr.faults.check import check_config
    from mmdet_rfdetr.faults.class_checks import check_loaders, loaders_of

    # isort: split
    from mmengine.logging import MMLogger

    # The data sets log what they find while they are built; here it comes once.
    MMLogger.get_instance('check_dataset', log_level='ERROR')
    faults = 0
    with running.explained_errors():
        cfg = running.load_config(args)
        for splits, findings in check_config(cfg):
            found = findings.table() if findings.counts else 'nothing to remark'
            print(f'\n[{splits}] {found}\n')
            faults += findings.faults
        check_loaders(loaders_of(cfg))
    return int(faults > 0)


if __name__ == '__main__':
    sys.exit(main())
