"""Pictures seen in tiles, or mirrored, in MMDetection's own test loop."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from PIL import Image, ImageOps

from mmdet_rfdetr.command_line import testing
from mmdet_rfdetr.errors import SettingError
from tests.factory import dataset, model_config, project_config, write_coco

SIZE = (48, 64)


class Record(Hook):
    """Keeps the predictions."""

    def __init__(self):
        self.samples = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.samples += outputs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp('evaluation') / 'data', [2, 3, 1], SIZE)


def run_test(data, folder, change=None):
    """Test the small model: the metrics, and the predictions of each picture."""
    cfg = project_config(data, folder)
    if change is not None:
        change(cfg)
    torch.manual_seed(0)
    runner, record = Runner.from_cfg(cfg), Record()
    model = getattr(runner.model, 'module', runner.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise)
    runner.register_hook(record)
    return runner.test(), record.samples


def tiled(**settings):
    settings = dict(overlap=0.2, whole=False) | settings
    return lambda cfg: testing.use_tiles(cfg, **settings)


def test_one_tile_gives_the_plain_detections_to_the_bit(data, tmp_path):
    metrics, plain = run_test(data, tmp_path / 'plain')
    again, found = run_test(data, tmp_path / 'tiled', tiled(tile=64, whole=True))
    assert metrics == again
    for one, other in zip(plain, found, strict=True):
        assert one.img_id == other.img_id and other.ori_shape == SIZE
        for name in ('bboxes', 'scores', 'labels'):
            assert torch.equal(one.pred_instances[name], other.pred_instances[name])


@pytest.mark.parametrize('whole', [False, True])
def test_tiles_are_joined_on_whole_pictures(data, tmp_path, whole):
    shapes = []

    def change(cfg):
        tiled(tile=32, overlap=0.25, whole=whole)(cfg)
        step = MODELS.get('RFDETR').test_step
        patch.setattr(
            MODELS.get('RFDETR'),
            'test_step',
            lambda self, data: shapes.append(len(data['inputs'])) or step(self, data),
        )

    with pytest.MonkeyPatch.context() as patch:
        metrics, found = run_test(data, tmp_path, change)
    assert 'coco/bbox_mAP' in metrics
    # Three pictures of 2 x 3 tiles, and the whole; two at once, as the loader gives.
    assert sum(shapes) == 3 * (6 + whole) and set(shapes) <= {2, 1}
    for sample in found:
        boxes = sample.pred_instances.bboxes
        assert 10 < len(boxes) <= 10 * (6 + whole)
        assert (boxes[:, 2] > 32).any() and (boxes[:, 3] > 32).any()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([64, 48, 64, 48])).all()
        scores = sample.pred_instances.scores
        assert (scores[:-1] >= scores[1:]).all()


def test_tiles_that_make_no_sense_are_refused(data, tmp_path):
    with pytest.raises(SettingError, match='tile=0'):
        run_test(data, tmp_path, tiled(tile=0))
    with pytest.raises(SettingError, match='overlap=1.0'):
        run_test(data, tmp_path, tiled(tile=32, overlap=1.0))

    def keep_ratio(cfg):
        cfg.test_dataloader.dataset.pipeline[1].update(sizes=[32], keep_ratio=True)
        cfg.test_dataloader.dataset.pipeline[1].pop('image_size')
        tiled(tile=32, whole=True)(cfg)

    with pytest.raises(SettingError, match='leave out keep_ratio=True'):
        run_test(data, tmp_path, keep_ratio)


def test_a_mirrored_picture_has_mirrored_detections(tmp_path):
    data = write_coco(tmp_path / 'data', [1, 1], SIZE)
    with Image.open(data / '0.png') as image:
        ImageOps.mirror(image).save(data / '1.png')
    _, plain = run_test(data, tmp_path / 'plain')
    metrics, found = run_test(
        data, tmp_path / 'mirrored', testing.use_test_time_augmentation
    )
    assert 'coco/bbox_mAP' in metrics

    def rows(sample, mirrored=False):
        found = sample.pred_instances
        boxes = found.bboxes.clone()
        if mirrored:
            boxes[:, [0, 2]] = SIZE[1] - boxes[:, [2, 0]]
        table = np.c_[found.scores, found.labels, boxes]
        return table[np.lexsort(table.round(3).T)]

    assert np.allclose(rows(found[0]), rows(found[1], mirrored=True), atol=1e-3)
    same = len(rows(plain[0])) == len(rows(plain[1], mirrored=True))
    assert not same or not np.allclose(
        rows(plain[0]), rows(plain[1], mirrored=True), atol=1e-3
    )


def view(boxes, scores, masks=None, **meta):
    """Detections of one view of a picture of (8, 10)."""
    sample = DetDataSample(metainfo=dict(ori_shape=(8, 10), **meta))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
        scores=torch.tensor(scores),
        labels=torch.zeros(len(scores), dtype=torch.int64),
    )
    if masks is not None:
        sample.pred_instances.masks = masks
    return sample


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_mirrored_masks_and_boxes_are_turned_back(direction):
    mask = torch.zeros(1, 8, 10, dtype=torch.bool)
    mask[0, 1:3, 2:5] = True
    dims = dict(horizontal=[2], vertical=[1], diagonal=[1, 2])[direction]
    turned = mask.flip(dims)
    rows, columns = turned[0].nonzero(as_tuple=True)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    views = [
        view([2, 1, 5, 3], [0.6], mask),
        view(box, [0.8], turned, flip=True, flip_direction=direction),
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(dict(type='RFDETRMirrorTTA', module=model_config()))
    (sample,) = model.merge_preds([views])
    assert sample.pred_instances.bboxes.tolist() == [[2, 1, 5, 3]]
    assert sample.pred_instances.scores.tolist() == pytest.approx([0.7])
    assert torch.equal(sample.pred_instances.masks, mask)


def test_tiles_know_the_annotations_of_the_picture_alone(data):
    from mmdet.registry import DATASETS, TRANSFORMS

    transforms = [
        dict(type='RFDETRResize', image_size=32),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape')),
    ]
    load = dict(type='RFDETRLoadImage')
    cut = dict(type='RFDETRTiles', transforms=transforms, tile=32)
    with DefaultScope.overwrite_default_scope('mmdet'):
        packed = DATASETS.build(dataset(data, pipeline=[load, cut], test_mode=True))[1]
        assert TRANSFORMS.get('RFDETRTiles').__name__ == 'RFDETRTiles'
    document = json.loads((data / 'annotations.json').read_text())
    count = sum(each['image_id'] == 1 for each in document['annotations'])
    assert len(packed['data_samples'].gt_instances) == count == 3
    assert packed['data_samples'].ori_shape == SIZE
    assert packed['inputs'].shape == (len(packed['data_samples'].views), 3, 32, 32)
