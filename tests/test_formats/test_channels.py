"""Images of other than three channels."""

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from PIL import Image

from mmdet_rfdetr.formats import RFDETRDataPreprocessor
from tests import factory
from tests.fixtures import REPOSITORY
from tests.test_training import test_options

data = test_options.data
settings = test_options.settings


def test_images_of_four_channels(settings, data):
    """Red, green, blue and one more, from the file to the saved weights."""
    for path in data.glob('*.png'):
        colour = np.asarray(Image.open(path))
        more = np.full((*colour.shape[:2], 1), 50 + int(path.stem), np.uint8)
        Image.fromarray(np.concatenate((colour, more), axis=2)).save(path)
    model = settings.model
    model.backbone.in_channels = 4
    model.data_preprocessor = dict(
        type='RFDETRDataPreprocessor', channels=4, bgr_to_rgb=True, pad_size_divisor=8
    )
    for loader in (settings.train_dataloader, settings.val_dataloader):
        loader.dataset.pipeline[0].update(color_type='unchanged')
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.update(type='RFDETRResize', image_size=factory.SIDE)
                del step['scale'], step['keep_ratio']
    runner, before = test_options.train(settings)
    name = 'backbone.patch_embed.weight'
    moved = (runner.model.state_dict()[name] - before[name]).abs().amax((0, 2, 3))
    assert moved.shape == (4,) and (moved > 0).all()
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars
    saved = MODELS.build(model)
    load_checkpoint(saved, str(next(data.parent.glob('*/epoch_1.pth'))))


def test_channels_are_ordered_and_normalised():
    preprocessor = RFDETRDataPreprocessor(
        channels=5, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 2.0), bgr_to_rgb=True
    )
    image = torch.tensor([10, 20, 30, 40, 50], dtype=torch.uint8)[:, None, None]
    inputs = preprocessor(dict(inputs=[image.expand(5, 4, 4)]))['inputs']
    assert inputs[0, :, 0, 0].tolist() == [29, 18, 3.5, 39, 48]


def test_three_channels_are_as_in_mmdet():
    values = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    shared = dict(values, bgr_to_rgb=True, pad_size_divisor=8)
    ours = MODELS.build(dict(type='RFDETRDataPreprocessor', channels=3, **shared))
    stock = MODELS.build(dict(type='DetDataPreprocessor', **shared))
    batch = factory.batch((2, 1))
    results = [p(copy.deepcopy(batch), True) for p in (ours, stock)]
    assert torch.equal(results[0]['inputs'], results[1]['inputs'])
    shapes = [r['data_samples'][0].batch_input_shape for r in results]
    assert shapes[0] == shapes[1]


def test_the_config_for_other_channels_loads_them(tmp_path):
    text = (REPOSITORY / 'docs' / 'training.md').read_text()
    block = text.partition('**Other channels.**')[2].split('```python\n')[1]
    (tmp_path / 'mine.py').write_text(block.partition('```')[0])
    factory.write_coco(tmp_path / 'pictures', [2])
    for path in (tmp_path / 'pictures').glob('*.png'):
        Image.open(path).convert('RGBA').save(path)
    made = Config.fromfile(tmp_path / 'mine.py')
    preprocess = MODELS.build(made.model.data_preprocessor)
    for name in ('train', 'val', 'test'):
        dataset = made[f'{name}_dataloader'].dataset
        dataset.update(ann_file='annotations.json', data_prefix=dict(img=''))
        dataset.update(data_root=str(tmp_path / 'pictures'))
        dataset.update(metainfo=dict(classes=factory.CLASSES))
        sample = DATASETS.build(dataset)[0]
        assert len(sample['data_samples'].gt_instances) == 2
        batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        assert preprocess(batch)['inputs'].shape[1] == 4


def test_another_number_of_channels_is_an_error():
    preprocessor = RFDETRDataPreprocessor(channels=4)
    with pytest.raises(ValueError, match="3 channels, .*color_type='unchanged'"):
        preprocessor(dict(inputs=[torch.zeros(3, 8, 8)]))
    with pytest.raises(ValueError, match='mean has 2 numbers and std 3'):
        RFDETRDataPreprocessor(channels=4, mean=(1, 2))


def test_a_file_for_colour_images_starts_a_model_of_four_channels():
    plain = factory.build_model()
    model = factory.build_model(**{'backbone.in_channels': 4})
    model.load_state_dict(plain.state_dict())
    kernel = plain.backbone.patch_embed.weight
    wanted = 3 / 4 * torch.cat((kernel, kernel[:, :1]), dim=1)
    assert torch.equal(model.backbone.patch_embed.weight, wanted)
