"""Renew ``tests/data/golden_training.json``: twenty steps of the demo model.

Run it in a checkout, and only where ``CONTRIBUTING.md`` allows it. It prints how
far the numbers moved, which belongs into the message of the commit.
"""

import sys
from pathlib import Path

import rfdetr_arguments as cli


def main():
    """Train in each precision and write the file."""
    cli.tool_parser(__doc__, '  python tools/make_golden_training.py').parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import mmdet_rfdetr  # noqa: F401  first, before anything of MMDetection
    from tests.test_demo import golden_training as golden

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
