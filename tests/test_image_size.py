import pytest
from mmengine.config import Config

from mmdet_rfdetr import config, set_image_size
from mmdet_rfdetr.image_size import image_sizes


def load(name):
    return Config.fromfile(config(name))


def test_every_part_follows():
    cfg = load('rfdetr_nano_coco.py')
    set_image_size(cfg, 512)
    assert image_sizes(cfg) == {512}
    assert cfg.image_size == 512
    assert cfg.model.backbone.pos_embed_size == 32


@pytest.mark.parametrize('name', ['rfdetr_base_coco.py', 'rfdetr_xlarge_coco.py'])
def test_divisor_follows_patch_size_and_windows(name):
    cfg = load(name)
    backbone = cfg.model.backbone
    divisor = backbone.patch_size * backbone.num_windows
    assert cfg.model.data_preprocessor.pad_size_divisor == divisor
    assert cfg.model.data_preprocessor.batch_augments[0].size_divisor == divisor


def test_a_table_that_is_always_resized_stays():
    cfg = load('rfdetr_base_coco.py')
    set_image_size(cfg, 616)
    assert cfg.model.backbone.pos_embed_size == 37


def test_a_size_that_does_not_divide_names_both_numbers():
    with pytest.raises(ValueError, match='image_size=500 must be a multiple of 32'):
        set_image_size(load('rfdetr_nano_coco.py'), 500)


def test_a_config_file_can_change_it(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = __import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')\n"
        "__import__('mmdet_rfdetr').set_image_size(_base_, 320)\n"
    )
    cfg = Config.fromfile(child)
    assert image_sizes(cfg) == {320}
    assert cfg.model.backbone.pos_embed_size == 20


def test_the_table_follows_where_only_the_config_itself_states_the_size():
    cfg = load('_base_/rfdetr_tiny.py')
    set_image_size(cfg, 256)
    assert cfg.model.backbone.pos_embed_size == 16


def test_a_backbone_of_others_goes_by_the_padding(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = __import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')\n"
        "model = dict(backbone=dict(_delete_=True, type='SwinTransformer'))\n"
    )
    cfg = Config.fromfile(child)
    set_image_size(cfg, 320)
    assert image_sizes(cfg) == {320}
    with pytest.raises(ValueError, match='multiple of 32 .*pad_size_divisor 32'):
        set_image_size(cfg, 500)
