"""A killed run with masks ends with the bits of one that was not killed."""

import json
import signal

import pytest

from tests.factory import write_coco
from tests.test_reliability.project import config, differences, result, train_in_child

MASKS = {
    'model.mask_head': dict(type='RFDETRMaskHead'),
    'model.bbox_head.loss_mask': dict(type='RFDETRPointMaskLoss'),
    'train_dataloader.dataset.pipeline.1': dict(
        type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True
    ),
    'val_dataloader.dataset.pipeline.2': dict(
        type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True
    ),
    'val_evaluator.metric': ['bbox', 'segm'],
    'train_cfg.max_epochs': 2,
    'randomness.seed': 3,
}


@pytest.mark.long
def test_random_points_go_on_where_they_were(tmp_path):
    data, whole, killed = (tmp_path / name for name in ('data', 'whole', 'killed'))
    write_coco(data, range(5))
    assert train_in_child(config(data, whole, **MASKS)) == 0
    # In the second epoch, after the first checkpoint.
    event = json.loads((whole / 'events.json').read_text())['count'] * 3 // 4
    exitcode = train_in_child(config(data, killed, **MASKS), event)
    assert exitcode == -signal.SIGKILL
    assert (killed / 'last_checkpoint').is_file()
    assert train_in_child(config(data, killed, **MASKS, resume=True)) == 0
    found = result(killed)
    assert differences(result(whole), found) == []
    assert any(name.startswith('mask_head.') for name in found['weights'])
    assert 'train/loss_mask' in found['log']
