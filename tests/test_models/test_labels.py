"""Labels that the model has no output for end in one sentence, not on the device."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import DefaultScope

from mmdet_rfdetr.errors import SettingError
from tests.factory import CLASSES, batch, build_model


@pytest.fixture(scope='module')
def detector():
    with DefaultScope.overwrite_default_scope('mmdet'):
        return build_model()


def bad_batch(label):
    data = batch([0, 2, 3])
    for number, sample in enumerate(data['data_samples']):
        sample.set_metainfo(dict(img_path=f'{number}.jpg'))
    data['data_samples'][2].gt_instances.labels[1] = label
    return data


@pytest.mark.parametrize('label', [-1, len(CLASSES), 255])
def test_the_image_and_the_label_are_named(detector, label):
    data = bad_batch(label)
    message = f'object of image 2.jpg has the label {label}, .*num_classes=3 are 0 to 2'
    with pytest.raises(SettingError, match=message):
        detector.data_preprocessor(data, True)  # as in training, before the device
    inputs = torch.stack([image.float() for image in data['inputs']])
    with pytest.raises(SettingError, match=message):
        detector.bbox_head.get_targets(data['data_samples'])
    with pytest.raises(SettingError, match=message):
        detector(inputs, data['data_samples'], mode='loss')


def test_what_is_not_trained_with_is_not_looked_at(detector):
    """A validation set may have more classes than the model."""
    data = bad_batch(7)
    detector.data_preprocessor(data, False)
    detector.data_preprocessor(dict(inputs=data['inputs']), True)


def test_models_with_the_check_are_copied(detector):
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        with pytest.raises(SettingError, match='has the label 7'):
            other.data_preprocessor(bad_batch(7), True)
