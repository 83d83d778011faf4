"""Renew ``tests/data/golden_training.json``: twenty steps of the demo model.

Run it in a checkout, and only where ``CONTRIBUTING.md`` allows it. It prints how
far the numbers moved, which belongs into the message of the commit.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmdet_rfdetr  # noqa: F401  (before anything of MMDetection)
from tests.test_demo import golden_training as golden


def main():
    """Train in each precision and write the file."""
    argparse.ArgumentParser(
        description=__doc__,
        epilog='example:\n  python tools/make_golden_training.py',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    results = {precision: golden.train(precision) for precision in golden.PRECISIONS}
    if golden.FILE.exists():
        before = golden.load()['results']
        for precision, new in results.items():
            far = golden.distance(before[precision], new)
            moved = ', '.join(f'{name} {value:.1e}' for name, value in far.items())
            print(f'{precision}: largest relative changes: {moved}')
    golden.save(results)
    print(f'Wrote {golden.FILE}')


if __name__ == '__main__':
    main()
