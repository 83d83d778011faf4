"""Every shipped model, in both runtimes, at the size it is for and at another one."""

import gc

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config as shipped
from mmdet_rfdetr.deploy.network import DeployedNetwork
from tests import parity
from tests.test_deploy import exported

# What a side of the input is a multiple of, and the side of another size than trained.
OTHER_SIDES = {
    'rfdetr_nano_coco': 320,
    'rfdetr_small_coco': 384,
    'rfdetr_medium_coco': 448,
    'rfdetr_base_coco': 448,
    'rfdetr_large_coco': 512,
    'rfdetr_large-deprecated_coco': 448,
    'rfdetr_xlarge_coco': 500,
    'rfdetr_2xlarge_coco': 480,
    'rfdetr-seg_preview_coco': 288,
    'rfdetr-seg_nano_coco': 240,
    'rfdetr-seg_small_coco': 288,
    'rfdetr-seg_medium_coco': 288,
    'rfdetr-seg_large_coco': 288,
    'rfdetr-seg_xlarge_coco': 288,
    'rfdetr-seg_2xlarge_coco': 288,
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings('ignore:.*LeafSpec:FutureWarning'),
]


@pytest.fixture(scope='module', params=OTHER_SIDES)
def shipped_model(request):
    """Name and model of a config, and the side of the images that it is for."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(shipped(f'{request.param}.py'))
    yield request.param, parity.rule_model(cfg.model).eval(), cfg.image_size
    gc.collect()


@pytest.mark.parametrize(
    ('other', 'counts', 'dynamic'),
    ((False, (1, 2, 5), True), (True, (1, 2), True), (False, (1,), False)),
    ids=('dynamic', 'another size', 'one image'),
)
def test_a_shipped_model(shipped_model, other, counts, dynamic, tmp_path):
    name, model, side = shipped_model
    size = (OTHER_SIDES[name] if other else side,) * 2
    images = exported.clear_images(model, size, max(counts))
    example = images[:2] if dynamic else images
    network = DeployedNetwork(model, size)
    path = exported.to_onnx(network, example, tmp_path, dynamic=dynamic)
    del network
    for runtime in (exported.in_onnxruntime, exported.in_openvino):
        worst = exported.assert_same(runtime(path), model, images, counts)
        print(f'\n{name} {size} {runtime.__name__}', worst, end='')
