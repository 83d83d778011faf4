"""Make ``tests/data/golden_*.npz`` with the official package.

Run it where ``rfdetr==1.11.2`` is installed; neither mmdet nor this package is
needed. The files change only if the cases in ``tests/golden.py`` or the rule in
``tests/golden_rule.py`` do.
"""

import logging
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rfdetr_arguments as cli

MARGIN = 1e-4
"""Scores of selected tokens must differ by more, or rounding decides their order."""


def check_margin(name, stages):
    """Refuse a case in which rounding could change the selection."""
    import numpy as np

    count = stages['enc_topk_index'].shape[-1]
    ranked = -np.sort(-stages['enc_all_score'], axis=-1)[..., : count + 1]
    gap = -np.diff(ranked, axis=-1).max()
    if gap < MARGIN:
        raise SystemExit(f'{name}: two scores differ by {gap:.2g}; take another seed')
    return gap


def main():
    """Make all files."""
    cli.tool_parser(
        __doc__, '  OFFICIAL_VENV/bin/python tools/make_golden.py'
    ).parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests import golden, official

    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    official.torch.set_num_threads(1)
    try:
        versions = {name: version(name) for name in ('rfdetr', 'torch')}
    except PackageNotFoundError as error:
        sys.exit(f'error: {error}: run this where rfdetr==1.11.2 is installed.')
    golden.FOLDER.mkdir(exist_ok=True)
    for name, case in golden.CASES.items():
        evaluated = official.run(golden.evaluation(case))
        trained = official.run(case)
        gaps = [check_margin(name, stages) for stages in (evaluated, trained)]
        stages = {f'eval/{key}': value for key, value in evaluated.items()}
        stages.update({f'train/{key}': value for key, value in trained.items()})
        golden.save(name, versions, stages)
        print(f'{name}: {len(stages)} arrays, smallest gap of scores {min(gaps):.2g}')


if __name__ == '__main__':
    main()
