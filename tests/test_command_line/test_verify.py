"""Figures that were published, and measured here, side by side."""

import json
import re
from functools import partial

import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_rfdetr.command_line.verifying import table, use_coco
from tests.factory import USER_CLASSES, coco, write
from tests.fixtures import REPOSITORY


@pytest.fixture
def tool(tool):
    return partial(tool, 'verify.py')


@pytest.fixture
def drawn(toy_project, tmp_path, monkeypatch):
    """A folder like COCO's, of which a model with random weights finds something."""
    monkeypatch.chdir(toy_project)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile('mine.py').model)
    weights = tmp_path / 'random.pth'
    meta = dict(dataset_meta=dict(classes=USER_CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), weights)
    pictures = tmp_path / 'coco' / 'val2017'
    drawn = coco([1] * 3, (60, 80), classes=USER_CLASSES, category_ids=(7, 3))
    write(pictures, drawn, drawn)
    model = init_detector('mine.py', str(weights), device='cpu')
    for image, truth in zip(drawn['images'], drawn['annotations'], strict=True):
        path = str(pictures / image['file_name'])
        found = inference_detector(model, path).pred_instances[0]
        left, top, right, bottom = found.bboxes[0].tolist()
        truth['bbox'] = [left, top, right - left, bottom - top]
        truth['category_id'] = (7, 3)[int(found.labels[0])]
    (pictures.parent / 'annotations').mkdir()
    annotations = pictures.parent / 'annotations' / 'instances_val2017.json'
    annotations.write_text(json.dumps(drawn))
    return pictures.parent, weights


def test_published_and_measured_stand_side_by_side(drawn, tool, capsys, tmp_path):
    folder, weights = drawn
    options = ['--coco', folder, '--published', 48.4, 67.6, '--work-dir', tmp_path]
    tool('mine.py', '--weights', weights, *options)
    said = capsys.readouterr().out
    logged = dict(re.findall(r'coco/(bbox_mAP|bbox_mAP_50): ([\d.]+)', said))
    ap, ap50 = (100 * float(logged[name]) for name in ('bbox_mAP', 'bbox_mAP_50'))
    assert ap > 1
    assert said.partition('random.pth with mine.py, ')[2].splitlines() == [
        'bbox, 3 images of COCO val2017',
        '      published  measured  difference',
        f'AP         48.4{ap:>10.1f}{ap - 48.4:>+12.1f}',
        f'AP50       67.6{ap50:>10.1f}{ap50 - 67.6:>+12.1f}',
        'What is published is for all 5000 images.',
    ]


def test_masks_are_compared_by_masks_and_what_is_not_published_is_not_known():
    found = {
        'coco/bbox_mAP': 0.5,
        'coco/bbox_mAP_50': 0.7,
        'coco/segm_mAP': 0.4031,
        'coco/segm_mAP_50': 0.6296,
    }
    assert table(found, 'segm', [40.3, 63.0]).splitlines()[1:] == [
        'AP         40.3      40.3        +0.0',
        'AP50       63.0      63.0        -0.0',
    ]
    assert table(found, 'bbox', None).splitlines()[1:] == [
        'AP      unknown      50.0',
        'AP50    unknown      70.0',
    ]


@pytest.fixture
def asked(tool, monkeypatch, tmp_path):
    """What the tool hands over for the official weights of a name."""
    seen = []
    monkeypatch.setattr('mmdet_rfdetr.command_line.verifying.verify', seen.append)
    monkeypatch.setenv('RFDETR_WEIGHTS', str(tmp_path))
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'instances_val2017.json').write_text('{}')

    def ask(*arguments):
        tool(*arguments, '--coco', tmp_path)
        return seen.pop()

    return ask


def test_a_name_stands_for_config_weights_and_figures(asked, tmp_path):
    for name, file, config, published in [
        ('nano', 'rf-detr-nano.pth', 'rfdetr_nano_coco.py', [48.4, 67.6]),
        ('seg-nano', 'rf-detr-seg-nano.pt', 'rfdetr-seg_nano_coco.py', [40.3, 63.0]),
        ('base', 'rf-detr-base.pth', 'rfdetr_base_coco.py', None),
    ]:
        (tmp_path / file).write_bytes(b'')
        args = asked(name)
        assert args.config == str(REPOSITORY / 'configs' / config)
        assert args.weights == str(tmp_path / file)
        assert args.published == published


def test_keypoints_have_a_file_of_their_own(asked, tmp_path, capsys):
    (tmp_path / 'rf-detr-keypoint-preview-xlarge.pth').write_bytes(b'')
    with pytest.raises(SystemExit):
        asked('keypoint-preview')
    assert 'person_keypoints_val2017.json' in capsys.readouterr().err
    (tmp_path / 'annotations' / 'person_keypoints_val2017.json').write_text('{}')
    assert asked('keypoint-preview').config.endswith('rfdetr-pose_preview_coco.py')


@pytest.mark.parametrize(
    ('config', 'file'),
    [
        ('rfdetr_nano_coco.py', 'instances_val2017.json'),
        ('rfdetr-pose_nano_coco.py', 'person_keypoints_val2017.json'),
    ],
)
def test_the_shipped_configs_test_on_the_folder(config, file, tmp_path):
    path = REPOSITORY / 'configs' / config
    if not path.exists():
        pytest.skip('the wing of this config is taken out')
    cfg = Config.fromfile(path)
    use_coco(cfg, str(tmp_path))
    dataset = cfg.test_dataloader.dataset
    assert (dataset.data_root, dataset.data_prefix.img) == (str(tmp_path), 'val2017')
    assert cfg.test_evaluator.ann_file == str(tmp_path / 'annotations' / file)
    assert dataset.ann_file == f'annotations/{file}'


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['nano'], 'weights get nano'),
        (['nanno'], "did you mean 'nano'?"),
        (['base-o365'], 'no config takes base-o365: Base on Objects365'),
        (['mine.py'], 'a config needs --weights FILE'),
        (['mine.py', '--weights', 'mine.py'], "of COCO 'data/coco/annotations/inst"),
    ],
)
def test_what_is_missing_is_told_at_once(arguments, said, tool, capsys, monkeypatch):
    monkeypatch.setenv('RFDETR_WEIGHTS', 'nowhere')
    with pytest.raises(SystemExit) as stopped:
        tool(*arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
