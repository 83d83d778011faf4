import pytest
import torch
from mmdet.apis import inference_detector, init_detector

from .project import project_config, run
from .recorder import expected, recorded

# The policy in the config, and what it comes to on a machine without CUDA.
POLICIES = [
    pytest.param(('cpu', 'bfloat16', torch.bfloat16), id='bfloat16'),
    pytest.param(('cpu', 'float16', torch.float16), id='float16'),
    pytest.param(('cuda', 'bfloat16', torch.float32), id='no CUDA'),
]


@pytest.fixture(params=POLICIES)
def policy(request, pictures, tmp_path, monkeypatch):
    """A config, and what every recorded state has to be."""
    # These tests are about a CPU, also where there is a GPU.
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cpu')
    device_type, dtype, runs_in = request.param
    return project_config(pictures, tmp_path, device_type, dtype), expected(runs_in)


def test_train_val_test_with_ema_and_recomputed_blocks(policy, log):
    config, state = policy
    config.custom_hooks = [dict(type='RFDETREMAHook')]
    config.model.backbone.with_cp = True
    with recorded() as seen:
        runner = run(config, 'train')
    # 2 blocks: 2 training steps forward and again in backward, 2 validation steps.
    assert len(seen) == 2 * (2 + 2 + 2)
    assert set(seen) == {state}
    assert sum('EMA weights' in line for line in log) == 1

    with recorded() as seen:
        runner.test()
    assert len(seen) == 2 * 2
    assert set(seen) == {state}
    assert sum('everything runs in float32' in line for line in log) == (
        state[1] == torch.float32
    )


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_val_and_test_alone(policy, mode):
    config, state = policy
    with recorded() as seen:
        run(config, mode)
    assert len(seen) == 2 * 2
    assert set(seen) == {state}


def test_inference_that_has_no_loop(policy, pictures, tmp_path):
    config, state = policy
    run(config, 'train')
    checkpoint, picture = str(tmp_path / 'iter_2.pth'), str(pictures / '0.png')

    model = init_detector(config, checkpoint, device='cpu')
    with recorded() as seen:
        inference_detector(model, picture)
    assert seen == [state] * 2


def test_test_time_augmentation(policy, monkeypatch):
    config, state = policy
    # The one compiled operator that mmdet's model for it merges detections with.
    monkeypatch.setattr(
        'mmdet.models.test_time_augs.det_tta.batched_nms',
        lambda boxes, scores, labels, cfg: (
            torch.cat((boxes, scores[:, None]), dim=1),
            torch.arange(len(boxes)),
        ),
    )
    load, resize, _, pack = config.test_dataloader.dataset.pipeline
    pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    config.test_dataloader.dataset.pipeline = [
        load,
        dict(type='TestTimeAug', transforms=[[resize], flips, [pack]]),
    ]
    config.model = dict(
        type='DetTTAModel',
        module=config.model,
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10),
    )
    with recorded() as seen:
        run(config, 'test')
    assert seen == [state] * (2 * 2 * 2)
