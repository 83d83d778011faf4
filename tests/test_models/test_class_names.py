import pytest
from mmdet.datasets import CocoDataset

from mmdet_rfdetr.checkpoints import class_rows
from mmdet_rfdetr.models.class_names import complete_names
from tests.test_checkpoints.models import build_tiny

PALETTE = CocoDataset.METAINFO['palette']


def of_coco():
    return {'classes': class_rows.label_names(), 'row_names': class_rows.row_names()}


@pytest.mark.parametrize(('num_classes', 'name'), [(80, 'bicycle'), (91, 'person')])
def test_a_model_takes_the_names_that_it_has_classes_for(num_classes, name):
    meta = of_coco()
    complete_names(meta, num_classes)
    assert len(meta['classes']) == num_classes
    assert meta['classes'][1] == name


def test_a_palette_reaches_the_last_class():
    meta = {'classes': ('a',), 'palette': PALETTE}
    complete_names(meta, 91)
    assert len(meta['palette']) == 91
    assert meta['palette'][:80] == PALETTE
    assert len(PALETTE) == 80


@pytest.mark.parametrize('palette', ['random', (1, 2, 3), [(0, 0, 0)] * 9])
def test_other_palettes_stay(palette):
    meta = {'classes': ('a', 'b'), 'palette': palette}
    complete_names(meta, 7)
    assert meta == {'classes': ('a', 'b'), 'palette': palette}


def test_the_model_names_its_classes_whatever_the_order_of_settings():
    model = build_tiny(**{'bbox_head.num_classes': 91})
    assert not hasattr(model, 'dataset_meta')
    model.dataset_meta = of_coco()
    model.dataset_meta['palette'] = PALETTE
    assert model.dataset_meta['classes'][85] == 'clock'
    assert len(model.dataset_meta['palette']) == 91
