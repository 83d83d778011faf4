"""The distribution of the runtime in an environment that has no PyTorch."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.factory import picture
from tests.fixtures import REPOSITORY
from tests.interpreter import run

# With the loader and the resizing that exported files have.
CONFIG = """
_base_ = {base!r}
meta_keys = ('img_id', 'ori_shape', 'img_shape', 'scale_factor')
pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='RFDETRResize', image_size=64),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_dataloader = dict(dataset=dict(pipeline=pipeline))
"""


@pytest.mark.slow
def test_a_file_is_run_without_pytorch(toy_project, toy_checkpoint, tmp_path):
    """As from the checkpoint, within 1e-4; pip takes the packages from where it can."""
    pytest.importorskip('onnxscript')
    source = tmp_path / 'source'
    shutil.copytree(REPOSITORY / 'runtime', source)
    python = tmp_path / 'venv' / 'bin' / 'python'
    constraints = REPOSITORY / 'requirements' / 'constraints.txt'
    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'venv'], check=True)
    install = [python, '-m', 'pip', 'install', '-q', '-c', constraints]
    subprocess.run([*install, f'{source}[onnx]'], check=True)
    code = (
        'import importlib.util as u; print(u.find_spec("torch"), u.find_spec("mmdet"))'
    )
    asked = subprocess.run([python, '-c', code], capture_output=True, text=True)
    assert asked.stdout.split() == ['None', 'None']

    for number in range(3):
        picture(50 + 9 * number, 70, number).save(tmp_path / f'{number}.png')
    tools, file = REPOSITORY / 'tools', tmp_path / 'toy.onnx'
    config = tmp_path / 'toy.py'
    config.write_text(CONFIG.format(base=str(toy_project / 'mine.py')))
    model = [config, toy_checkpoint]
    export = [sys.executable, tools / 'export.py', *model, '--out', file]
    done = run(export, cwd=toy_project)
    assert done.returncode == 0, done.stderr
    pictures = [tmp_path / f'{number}.png' for number in range(3)]
    wanted = ['--stdout', '--quiet', '--threshold', '0']
    torch_side = [sys.executable, tools / 'predict.py', *model, *pictures, *wanted]
    expected = run(torch_side, cwd=toy_project)
    assert expected.returncode == 0, expected.stderr
    found = subprocess.run(
        [python, '-m', 'rfdetr_predict', file, *pictures, *wanted],
        cwd=tmp_path,
        env={'PATH': os.environ['PATH']},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    for one, other in zip(
        expected.stdout.splitlines(), found.stdout.splitlines(), strict=True
    ):
        one, other = (json.loads(each)['detections'] for each in (one, other))
        assert [each['label'] for each in one] == [each['label'] for each in other]
        for key, bound in (('score', 1e-4), ('box', 1e-2)):
            values = [np.array([each[key] for each in side]) for side in (one, other)]
            assert np.abs(values[0] - values[1]).max() < bound
