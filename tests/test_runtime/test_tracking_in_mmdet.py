"""MMDetection's trackers with RF-DETR as their detector."""

import copy

import numpy as np
import pytest
import torch
from mmdet.apis import (
    inference_detector,
    inference_mot,
    init_detector,
    init_track_model,
)
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config
from tests.factory import picture

pytest.importorskip('lap')
SMALL = {
    'num_queries': 12,
    'precision': None,
    'backbone.embed_dims': 24,
    'backbone.num_heads': 2,
    'backbone.out_indices': (1, 2),
    'backbone.pos_embed_size': 4,
    'neck.in_channels': [24, 24],
    'neck.out_channels': 16,
    'decoder.num_layers': 1,
    'decoder.self_attn_heads': 2,
    'decoder.cross_attn_heads': 2,
    'decoder.feedforward_channels': 32,
    'test_cfg.max_per_img': 10,
}
OC_SORT = dict(
    type='OCSORTTracker',
    motion=dict(type='KalmanFilter'),
    obj_score_thr=0.0,
    init_track_thr=0.0,
)
BYTE_TRACK = dict(obj_score_thrs=dict(high=0.0, low=0.0), init_track_thr=0.0)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """The detector alone, small, with weights at random."""
    cfg = Config.fromfile(config('rfdetr_nano_coco.py'))
    cfg.merge_from_dict({f'model.{name}': value for name, value in SMALL.items()})
    torch.manual_seed(0)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.bbox_head.fc_cls.weight.normal_()
    path = tmp_path_factory.mktemp('tracking') / 'detector.pth'
    meta = dict(dataset_meta=dict(classes=('cat',) * 80))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return cfg, str(path)


@pytest.mark.parametrize('kind', ['ByteTrack', 'OCSORT'])
@pytest.mark.filterwarnings('ignore:dataset_meta or class names are missed')
def test_the_example_detects_as_alone_and_gives_ids(checkpoint, kind):
    if kind == 'OCSORT':  # its module looks for it, and uses it elsewhere
        pytest.importorskip('motmetrics')
    alone, path = checkpoint
    cfg = Config.fromfile(config('rfdetr_nano_bytetrack.py'))
    cfg.merge_from_dict({f'model.detector.{n}': value for n, value in SMALL.items()})
    if kind == 'OCSORT':
        cfg.model.type, cfg.model.tracker = kind, OC_SORT
    else:
        cfg.model.tracker.update(BYTE_TRACK)
    model = init_track_model(copy.deepcopy(cfg), detector=path, device='cpu')
    detector = init_detector(alone, path, device='cpu')
    frame = np.array(picture(50, 70))
    for number in range(3):  # the same picture: each object keeps its id
        sample = inference_mot(model, frame, number, 3)[0]
        expected = inference_detector(detector, frame).pred_instances
        found = sample.pred_instances
        assert torch.equal(found.bboxes, expected.bboxes)
        assert torch.equal(found.scores, expected.scores)
        tracked = sample.pred_track_instances
        ids = set(tracked.instances_id.tolist())
        assert len(ids) == len(tracked.bboxes) > 0
    assert ids
