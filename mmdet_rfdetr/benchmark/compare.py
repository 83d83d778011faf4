"""What ``tools/benchmark.py`` does with its arguments."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from .pictures import draw_data_set
from .report import draw, table, write_json
from .sides import BenchmarkError, Side, measure


def compare(args: argparse.Namespace) -> None:
    """Measure the sides in turn and report.

    Args:
        args: of the tool; ``cfg_options`` is a dictionary.

    Raises:
        SystemExit: with one sentence, if a side fails.
    """
    samples = args.samples or dict(loader=30, metric=1, checkpoint=1, startup=1).get(
        args.task, 3
    )
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            count = args.images or dict(loader=60, metric=200).get(args.task, 8)
            classes = [f'class {number}' for number in range(80)]
            draw_data_set(Path(folder), count, args.boxes, classes)
        sides = make_sides(args, args.data or folder)
        try:
            results = measure(sides, args.rounds, samples, args.pause, _tell)
        except BenchmarkError as error:
            sys.exit(str(error))
    protocol = dict(
        vars(args),
        command=shlex.join(['python', *sys.argv]),
        out_dir=str(args.out_dir),
        samples=samples,
    )
    print(table(results))
    facts = results[0]['facts']
    threads = f'{facts["threads"]} thread{"s" * (facts["threads"] != 1)}'
    print(
        f'{args.task}, {args.dtype}, {facts["device"]}, {threads}, '
        f'{args.clock} time, torch {facts["torch"]}: {protocol["command"]}'
    )
    if args.out_dir is not None:
        write_json(results, protocol, args.out_dir / 'result.json')
        draw(results, args.task).savefig(args.out_dir / 'result.png', dpi=120)


def make_sides(args: argparse.Namespace, data: str) -> list[Side]:
    """The sides in order; what is compared with comes first."""
    options = dict(vars(args), data=data, plain=False)
    del options['out_dir']  # a path, which is no JSON
    sides = []
    if args.official:
        official = dict(options, target=args.official)
        sides.append(Side(args.official, official, args.official_python))
    plain = dict(checkpoint='torch.save, torch.load', startup='MMDetection')
    if args.task in plain:
        reference = dict(options, target=args.configs[0], plain=True)
        sides.append(Side(plain[args.task], reference))
    if args.task == 'metric':
        stock = {'val_evaluator.type': 'CocoMetric'}
        reference = dict(options, target=args.configs[0], cfg_options=stock)
        sides.append(Side('CocoMetric', reference))
    for config in args.configs:
        sides.append(Side(Path(config).stem, dict(options, target=config)))
    return sides


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
