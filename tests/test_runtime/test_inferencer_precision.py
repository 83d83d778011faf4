"""MMDetection's inferencer, under the precision of the config."""

import pytest
import torch
from mmdet.apis import DetInferencer

from tests.factory import write_coco
from tests.test_precision.project import project_config, run
from tests.test_precision.recorder import expected, recorded


@pytest.mark.parametrize(
    ('device_type', 'runs_in'), [('cpu', torch.bfloat16), ('cuda', torch.float32)]
)
def test_inferencer_that_has_no_loop(tmp_path, monkeypatch, device_type, runs_in):
    pictures = write_coco(tmp_path / 'pictures', [1, 2, 1, 2])
    # The machine of this test has no GPU, also where there is one.
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cpu')
    config = project_config(pictures, tmp_path, device_type, 'bfloat16')
    run(config, 'train')
    checkpoint, picture = str(tmp_path / 'iter_2.pth'), str(pictures / '0.png')
    config.dump(tmp_path / 'config.py')
    inferencer = DetInferencer(
        str(tmp_path / 'config.py'), checkpoint, device='cpu', show_progress=False
    )
    with recorded() as seen:
        inferencer(picture, no_save_pred=True)
    assert seen == [expected(runs_in)] * 2
