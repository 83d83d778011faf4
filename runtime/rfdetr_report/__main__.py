"""``python -m rfdetr_report``: a page on COCO results of any detector."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rfdetr_runtime.errors import SourceError

EXAMPLES = """\
examples:
  python -m rfdetr_report --annotations val.json --results coco.json \\
      --images val/ --out report
  python -m rfdetr_report --annotations val.json --results results.segm.json \\
      --images val/ --out report --threshold 0.5 --pictures 100

FILE of --results is a list of detections with image_id, category_id, score and bbox, or
segmentation, or both: what --save coco of rfdetr_predict writes, outfile_prefix of
MMDetection's metric, and most others. The page is DIR/index.html; it needs no server.
Exit codes: 0; 1 if something is wrong with the files; 2 for a wrong command line.
"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser."""
    parser = argparse.ArgumentParser(
        prog='python -m rfdetr_report',
        description='Show what a detector got right and wrong, as one page.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--annotations', required=True, metavar='FILE', help='COCO annotations')
    add('--results', required=True, metavar='FILE', help='COCO results')
    add('--images', required=True, metavar='DIR', help='folder of the pictures')
    add('--out', required=True, metavar='DIR', help='folder of the page')
    add('--threshold', type=float, help='least score (default: that of the best F1)')
    add('--pictures', type=int, default=24, metavar='N', help='shown (default: 24)')
    add(
        '--max-dets', type=int, default=100, metavar='N', help='of a class in a picture'
    )
    add('--title', default='Detections', help='of the page')
    add('--quiet', action='store_true', help='no progress')
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = build_parser().parse_args(arguments)
    from rfdetr_runtime.pictures import read_picture

    from .documents import read_json
    from .evaluation import Settings
    from .report import write_report

    def load(image: dict):
        size = image.get('height'), image.get('width')
        try:
            return read_picture(str(Path(args.images, image['file_name'])), size)
        except Exception:  # the page says so; decoders of some formats raise anything
            return None

    try:
        counts = sorted({1, 10, args.max_dets})
        evaluations = write_report(
            args.out,
            read_json(args.annotations, 'annotations'),
            read_json(args.results, 'results'),
            load,
            settings=Settings([n for n in counts if n <= args.max_dets], args.max_dets),
            threshold=args.threshold,
            pictures=args.pictures,
            title=args.title,
            facts={'Annotations': args.annotations, 'Results': args.results},
            quiet=args.quiet,
        )
    except SourceError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for kind, each in evaluations.items():
        told = (f'{k} {v:.3f}' for k, v in each.overall.items() if v is not None)
        print(kind, ', '.join(told))
    print(f'Look at {Path(args.out, "index.html")}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
