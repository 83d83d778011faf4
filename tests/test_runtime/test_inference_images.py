"""Every image that training reads, MMDetection's inference functions read as well."""

import cv2
import numpy as np
import pytest
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmdet_rfdetr.errors import ExplainedError

KINDS = (
    *('grey', 'colour', 'opacity', 'cmyk', 'palette', 'bits16', 'float', 'turned'),
    *('colour16', 'bits12', 'avif'),
)
ANNOTATIONS = (
    '{"images": [{"id": 5, "file_name": "NAME", "height": HEIGHT, "width": WIDTH}], '
    '"annotations": [], "categories": [{"id": 1, "name": "square"}, '
    '{"id": 2, "name": "bar"}]}'
)


def save(kind, folder):
    """An image of 40 x 60 of one kind; its path."""
    y, x = np.mgrid[0:40, 0:60]
    ramp = np.stack([x * 4, y * 6, (x + y) * 2], 2).astype(np.uint8)
    image, grey = Image.fromarray(ramp), Image.fromarray(ramp[..., 0])
    path = folder / f'{kind}.png'
    if kind == 'colour16':
        wide = ramp[..., ::-1].astype(np.uint16) * 257
        path.write_bytes(cv2.imencode('.png', wide)[1].tobytes())
        return path
    exif = Image.Exif()
    exif[0x0112] = 6
    suffix = dict(cmyk='.jpg', float='.tif', turned='.jpg', avif='.avif')
    path = path.with_suffix(suffix.get(kind, '.png'))
    dict(
        grey=grey,
        opacity=Image.fromarray(np.dstack([ramp, ramp[..., :1]])),
        cmyk=image.convert('CMYK'),
        palette=image.quantize(32),
        bits16=Image.fromarray(ramp[..., 0].astype(np.uint16) * 257),
        bits12=Image.fromarray(ramp[..., 0].astype(np.uint16) * 16),
        float=Image.fromarray(ramp[..., 0].astype(np.float32)),
    ).get(kind, image).save(path, **(dict(exif=exif) if kind == 'turned' else {}))
    return path


@pytest.fixture(scope='module')
def cfg(toy_project):
    """The toy project with our data set, test data and loader."""
    cfg = Config.fromfile(toy_project / 'mine.py')
    cfg.test_dataloader.dataset.type = 'RFDETRCocoDataset'
    load = dict(type='RFDETRLoadImage')
    cfg.test_dataloader.dataset.pipeline[0] = load
    return cfg


@pytest.fixture(scope='module')
def model(cfg, toy_checkpoint):
    return init_detector(cfg, str(toy_checkpoint), device='cpu')


@pytest.fixture(scope='module')
def inferencer(cfg, toy_checkpoint):
    return DetInferencer(
        cfg.copy(), str(toy_checkpoint), device='cpu', show_progress=False
    )


@pytest.fixture
def seen(model, monkeypatch):
    """What the model is given, in the order of the calls."""
    inputs, step = [], model.test_step

    def record(data):
        inputs.extend(data['inputs'])
        return step(data)

    monkeypatch.setattr(model, 'test_step', record)
    return inputs


@pytest.mark.parametrize(
    ('kind', 'loader'),
    [(kind, 'RFDETRLoadImage') for kind in KINDS]
    # Which it reads with pixels of its own.
    + [(kind, 'LoadImageFromFile') for kind in ('grey', 'cmyk', 'turned')],
)
def test_pixels_are_those_of_the_data_set(
    kind, loader, cfg, model, inferencer, seen, tmp_path, monkeypatch
):
    path = save(kind, tmp_path)
    settings = dict(type=loader)
    if kind == 'bits12':
        settings['deep_range'] = (0, 4095)
    changed = Config(cfg.to_dict())
    dataset = changed.test_dataloader.dataset
    dataset.pipeline[0] = settings
    monkeypatch.setattr(model, 'cfg', changed)
    height, width = (60, 40) if kind == 'turned' else (40, 60)
    text = ANNOTATIONS.replace('NAME', path.name).replace('HEIGHT', str(height))
    (tmp_path / 'a.json').write_text(text.replace('WIDTH', str(width)))
    dataset = dict(dataset, data_root=str(tmp_path), ann_file='a.json')
    with DefaultScope.overwrite_default_scope('mmdet'):
        expected = DATASETS.build(dataset)[0]['inputs']
    result = inference_detector(model, str(path))
    assert seen[-1].equal(expected)
    assert result.ori_shape == (height, width)
    assert inferencer._init_pipeline(changed)(str(path))['inputs'].equal(expected)


def arrays():
    """The grey picture as other programs hand it on."""
    levels = np.mgrid[0:40, 0:60][1].astype(np.uint8) * 4
    return (
        levels,
        levels[..., None],
        np.dstack([levels] * 3),
        np.dstack([levels] * 4),
        levels.astype(np.uint16) * 256,
        levels.astype(np.float32),
        levels.astype(np.int64),
    )


def test_arrays_and_paths_in_any_order_are_the_same_image(model, seen, tmp_path):
    path = save('grey', tmp_path)
    images = [str(path), *arrays(), path, str(path)]
    for image in images:
        inference_detector(model, image)
    assert len(inference_detector(model, images[::-1])) == len(images)
    assert len(seen) == 2 * len(images)
    assert all(image.equal(seen[0]) for image in seen)


@pytest.mark.parametrize('nothing', [[], ()])
def test_no_images_give_no_results(model, nothing):
    assert inference_detector(model, nothing) == []


@pytest.mark.parametrize(
    ('image', 'sentence'),
    [
        (np.zeros((0, 0, 3), np.uint8), r'shape \(0, 0, 3\)'),
        (np.zeros(0, np.uint8), r'shape \(0,\)'),
        (np.zeros((3, 40, 60), np.uint8), r'shape \(3, 40, 60\)'),
        (None, 'a path or an array, and got None'),
        (5, 'a path or an array, and got 5'),
        ('absent.jpg', 'absent.jpg: does not exist'),
        ('.', 'is a folder'),
    ],
)
def test_what_is_no_image_is_one_sentence(model, image, sentence):
    for images in (image, [image]):
        with pytest.raises(ExplainedError, match=sentence):
            inference_detector(model, images)
