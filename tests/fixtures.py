"""Where the parity fixtures and the real images lie, when they are at hand.

Both are optional: tests that need them skip when the folder is absent. The
project's own golden file guards parity everywhere else.
"""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FIXTURES = Path(
    os.environ.get('RFDETR_FIXTURES', REPOSITORY.parent / 'shared' / 'fixtures')
)
DATA = Path(os.environ.get('RFDETR_DATA', REPOSITORY.parent / 'shared' / 'data'))

needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason='parity fixtures absent: set RFDETR_FIXTURES'
)
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason='real images absent: set RFDETR_DATA'
)


def rule():
    """The module that makes weights, images and targets from a rule."""
    spec = importlib.util.spec_from_file_location('det_rule', FIXTURES / 'det_rule.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_json(name):
    """Read ``<fixtures>/<name>.json``."""
    return json.loads((FIXTURES / f'{name}.json').read_text())


def load_pair(name):
    """Read ``<name>.npz`` and ``<name>.json``: (arrays, description)."""
    with np.load(FIXTURES / f'{name}.npz') as archive:
        arrays = {key: archive[key] for key in archive.files}
    return arrays, load_json(name)


def strided(full, stride):
    """The part of ``full`` that a fixture stores (see the fixtures' README)."""
    full = np.asarray(full)
    return full if stride == 1 else full.reshape(-1)[::stride]
