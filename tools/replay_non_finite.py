"""Compute again what stopped a run: the dump of a loss that was not finite."""

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/replay_non_finite.py work_dirs/rfdetr_coco/rfdetr_coco.py \\
      work_dirs/rfdetr_coco/non_finite_iter_4711_rank_0.pth

CONFIG is that of the run: its work folder holds a copy. Runs on the CPU and changes
nothing. Prints for each batch of the step its images, its loss terms, the first module
with an output that was not finite, and the gradients that were not. An accident of the
hardware does not happen again.
"""


def main() -> None:
    """Parse the arguments and print what the dump comes to."""
    parser = cli.config_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'dump', metavar='DUMP', help='non_finite_iter_*.pth; no code in it runs'
    )
    args = parser.parse_args()
    cli.require_file(parser, args.config, 'config')
    cli.require_file(parser, args.dump, 'dump')

    from mmdet_rfdetr.analysis.dump import replay
    from mmdet_rfdetr.command_line import running

    with running.explained_errors():
        weights, *batches = replay(running.load_config(args), args.dump)
    print(weights)
    for iteration, found in batches:
        verdict = 'finite' if found.is_finite else 'NOT finite'
        print(f'Iteration {iteration + 1}: {verdict}\n{found}')


if __name__ == '__main__':
    main()
