"""Train a toy model with the official package and with this one, and compare.

Both start from the same official checkpoint, see the same batches, and use their own
losses, optimizer groups, clipping, schedule, multi-scale sizes and moving average.
Needs ``rfdetr[train]==1.11.2``, here or in the environment whose Python
``RFDETR_OFFICIAL_PYTHON`` names, and a checkout of the repository.
"""

import sys
import tempfile
from pathlib import Path

import rfdetr_arguments as cli


def main() -> None:
    """Train, print the table and draw the curves."""
    parser = cli.tool_parser(
        __doc__.split('\n')[0], '  python tools/compare_learning.py --plot curves.png'
    )
    parser.add_argument(
        '--accumulation', type=int, default=1, help='batches of an optimizer step'
    )
    parser.add_argument('--plot', type=Path, help='draw the curves into this PNG file')
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import mmdet_rfdetr  # noqa: F401  first, before anything of MMDetection

    # isort: split
    import torch

    try:
        from tests import learning
    except ModuleNotFoundError as error:
        sys.exit(
            f'error: {error}: run this tool in a checkout, with rfdetr[train]==1.11.2.'
        )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            found = learning.compare(folder, arguments.accumulation)
        except (OSError, RuntimeError) as error:
            *_, reason = str(error).strip().splitlines()
            if isinstance(error, RuntimeError) and 'ModuleNotFoundError' not in reason:
                raise
            sys.exit(
                f'error: the official package cannot be run ({reason}): let '
                'RFDETR_OFFICIAL_PYTHON name a Python with rfdetr[train]==1.11.2.'
            )
        print(learning.table(*found))
        theirs, ours, led = found
        for title, side in (('this', ours), ('same tokens', led)):
            apart = [
                learning.weight_difference(side, theirs, folder / 'start.pth', kind)
                for kind in ('weight', 'average')
            ]
            print(
                f'{title}: weights at the end differ by {apart[0]:.1%} of the way they '
                f'went, the moving average by {apart[1]:.1%}'
            )
    if arguments.plot:
        learning.plot(arguments.plot, *found)


if __name__ == '__main__':
    main()
