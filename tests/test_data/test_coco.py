"""The data set on sound files: boxes, labels by name, and pixels."""

import ast
import gc
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.runner import Runner
from PIL import Image

from mmdet_rfdetr.data import RFDETRCocoDataset, annotations
from mmdet_rfdetr.errors import BadDataError, ExplainedError, SettingError
from tests.factory import (
    ANIMALS,
    LOAD,
    PIPELINE,
    build,
    document,
    picture,
    write,
)
from tests.fixtures import DATA, needs_data


def names(dataset):
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [info['img_path'].rpartition('/')[2] for info in infos]


def boxes(dataset, index):
    return [item['bbox'] for item in dataset.get_data_info(index)['instances']]


def test_sound_data_gives_what_mmdet_gives(tmp_path):
    ours = build(write(tmp_path))
    theirs = build(tmp_path, type='CocoDataset')
    assert len(ours) == len(theirs) == 3
    for index in range(3):
        mine, other = ours.get_data_info(index), theirs.get_data_info(index)
        mine.pop('file_index', None)
        for instance in mine['instances']:
            if not instance['mask']:
                del instance['mask']
        assert mine == other
    assert ours.cat_ids == theirs.cat_ids == [17, 90]


@needs_data
@pytest.mark.parametrize('split', ['train', 'val'])
def test_blood_cells_give_what_mmdet_gives(split):
    cfg = dict(
        data_root=str(DATA / 'bccd'),
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
    )
    ours = build('', **cfg)
    theirs = build('', type='CocoDataset', **cfg)
    assert len(ours) == len(theirs)
    for index in range(len(ours)):
        mine, other = ours.get_data_info(index), theirs.get_data_info(index)
        assert mine['img_path'] == other['img_path']
        assert [i['bbox'] for i in mine['instances']] == [
            i['bbox'] for i in other['instances']
        ]


def test_boxes_are_clipped_and_kept_below_a_pixel(tmp_path):
    data = document()
    sound = data['annotations'][0]
    data['annotations'] += [
        dict(sound, id=103, bbox=[50, 30, 20, 20]),
        dict(sound, id=104, bbox=[3, 3, 0.5, 0.25]),
        dict(sound, id=105, bbox=[61, 5, 10, 10]),
        dict(sound, id=106, bbox=[5, 5, 0, 7]),
        dict(sound, id=107, iscrowd=1, bbox=[1, 1, 2, 2]),
        dict(sound, id=108, ignore=1, bbox=[1, 1, 2, 2]),
    ]
    dataset = build(write(tmp_path, data))
    assert boxes(dataset, 0)[2:4] == [[50, 30, 60, 40], [3, 3, 3.5, 3.25]]
    assert dataset.object_counts == [4, 1, 1]
    sample = dataset[0]['data_samples']
    assert len(sample.gt_instances) == 4
    assert len(sample.ignored_instances) == 2


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
def test_a_pipeline_runs_the_loader_that_it_names(tmp_path, color_type):
    picture(40, 60).convert('CMYK').save(write(tmp_path) / 'a.jpg')
    load = dict(type='LoadImageFromFile', color_type=color_type)
    pixels = build(tmp_path, pipeline=[load])[0]['img']
    expected = mmcv.imread(tmp_path / 'a.jpg', color_type)
    np.testing.assert_array_equal(pixels, expected)
    assert build(tmp_path, pipeline=[LOAD])[0]['img'].shape == (40, 60, 3)


def test_images_without_objects_can_be_filtered_as_in_mmdet(tmp_path):
    data = document()
    data['annotations'] = data['annotations'][:1]
    filter_cfg = dict(filter_empty_gt=True, min_size=1)
    dataset = build(write(tmp_path, data), filter_cfg=filter_cfg)
    assert names(dataset) == ['a.jpg']


def test_category_zero_is_a_category(tmp_path):
    data = document()
    data['categories'].insert(0, dict(id=0, name='animal'))
    data['annotations'][1]['category_id'] = 0
    dataset = build(
        write(tmp_path, data), metainfo=dict(classes=('animal', 'cat', 'dog'))
    )
    assert dataset.get_data_info(1)['instances'][0]['bbox_label'] == 0


def labels(dataset):
    """File name to the names of its objects."""
    classes = dataset.metainfo['classes']
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {
        Path(info['img_path']).name: [
            classes[instance['bbox_label']] for instance in info['instances']
        ]
        for info in infos
    }


def test_labels_follow_metainfo_whatever_the_order_of_the_file(tmp_path):
    expected = {'a.jpg': ['cat', 'dog'], 'b.jpg': ['dog'], 'c.jpg': ['cat']}
    data = document()
    for reverse in (False, True):
        data['categories'].sort(key=lambda entry: entry['id'], reverse=reverse)
        write(tmp_path, data)
        for classes in (('cat', 'dog'), ('dog', 'cat')):
            dataset = build(tmp_path, metainfo=dict(classes=classes))
            assert labels(dataset) == expected
            assert dataset.cat_ids == [dict(cat=17, dog=90)[name] for name in classes]


@pytest.fixture
def warned(monkeypatch):
    """What is logged about the classes of a file."""
    lines = []
    monkeypatch.setattr(
        annotations, 'print_log', lambda text, logger, level: lines.append(text)
    )
    return lines


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_class_that_the_file_lacks_has_no_objects(tmp_path, warned, test_mode):
    """Labels of the others stay what they are in files that have it."""
    dataset = build(
        write(tmp_path),
        metainfo=dict(classes=('horse', 'cat', 'dog')),
        test_mode=test_mode,
        filter_cfg=dict(filter_empty_gt=True),
    )
    assert labels(dataset) == {
        'a.jpg': ['cat', 'dog'],
        'b.jpg': ['dog'],
        'c.jpg': ['cat'],
    }
    assert len(warned) == 1
    assert warned[0].endswith(
        "annotations.json lack ('horse',), which count as classes without objects."
    )


def test_a_class_that_may_be_misspelt_is_suggested(tmp_path, warned):
    data = document()
    data['categories'][0]['name'] = 'kitten'
    build(write(tmp_path, data), metainfo=dict(classes=('kitte', 'dog')))
    assert warned[0].endswith("Did you mean 'kitten' (not 'kitte')?")


@pytest.mark.parametrize(
    'classes, what',
    [
        (('horse',), r"lack \('horse',\).*File: \('cat', 'dog'\)"),
        (('Cat', 'dog'), r"Did you mean 'cat' \(not 'Cat'\)\?"),
        (('c_at', 'dog '), r"mean 'cat' \(not 'c_at'\), 'dog' \(not 'dog '\)\?"),
        ('cat', r"metainfo.classes='cat' is a text and no file .* classes=\('cat',\)"),
        (('cat', 'dog', 'dog'), "has 'dog' more than once"),
        ((), 'is empty'),
    ],
)
def test_classes_that_do_not_match_are_an_error(tmp_path, classes, what):
    with pytest.raises(ValueError, match=what) as error:
        build(write(tmp_path), metainfo=dict(classes=classes))
    assert isinstance(error.value, ExplainedError)
    assert str(classes) in str(error.value)


def test_the_advice_about_a_text_is_right(tmp_path):
    with pytest.raises(SettingError) as error:
        build(write(tmp_path), metainfo=dict(classes='cat, dog'))
    advice = str(error.value).partition(' classes=')[2].rstrip('.')
    assert build(tmp_path, metainfo=dict(classes=ast.literal_eval(advice))).cat_ids


def test_classes_may_be_a_file_of_names(tmp_path):
    write(tmp_path)
    (tmp_path / 'classes.txt').write_text('dog\ncat\n')
    dataset = build(tmp_path, metainfo=dict(classes=str(tmp_path / 'classes.txt')))
    assert dataset.cat_ids == [90, 17]


def test_the_classes_of_coco_on_other_data_are_an_error(tmp_path):
    """Whoever forgets metainfo gets told, and not 80 names."""
    with pytest.raises(BadDataError, match='and 68 more'):
        build(write(tmp_path), metainfo=None)
    names = RFDETRCocoDataset.METAINFO['classes']  # unless they are meant
    assert build(tmp_path, metainfo=dict(classes=names)).cat_ids == [17, 90]
    assert build(tmp_path, metainfo=None, test_mode=True).cat_ids == [17, 90]


def test_names_may_be_numbers(tmp_path):
    data = dict(document(), categories=[dict(id=17, name=0), dict(id=90, name=1)])
    assert len(build(write(tmp_path, data), metainfo=dict(classes=(0, 1)))) == 3


def test_turned_photographs_follow_the_stated_size(tmp_path):
    """Boxes were drawn on the picture as stored or as shown; its size tells."""
    data = document()
    data['images'] = [
        dict(id=70, file_name='turned.jpg', height=40, width=60),
        dict(id=3, file_name='turned.jpg', height=60, width=40),
    ]
    write(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255  # white on the left as stored, on top as shown
    Image.fromarray(pixels).save(tmp_path / 'turned.jpg', exif=exif)
    as_stored, as_shown = (build(tmp_path, pipeline=[LOAD])[i]['img'] for i in range(2))
    assert as_stored.shape == (40, 60, 3)
    assert as_stored[:, :25].min() > 200 and as_stored[:, 35:].max() < 50
    assert as_shown.shape == (60, 40, 3)
    assert as_shown[:25].min() > 200 and as_shown[35:].max() < 50


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB', 'P', 'LA', 'RGBA', 'I;16', '1'])
def test_images_of_every_mode_train(tmp_path, mode):
    folder = write(tmp_path)
    ramp = np.linspace(0, 255, 40 * 60).reshape(40, 60)
    ramps = np.stack([ramp, ramp[::-1, ::-1], ramp / 2], axis=2)
    source = Image.fromarray(ramps.astype(np.uint8))
    if mode == 'I;16':
        image = Image.fromarray(np.asarray(source.convert('L')).astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = source.convert(mode)
    kind = 'jpeg' if mode in ('L', 'CMYK', 'RGB') else 'png'
    image.save(folder / 'a.jpg', kind, **dict(jpeg=dict(quality=95), png={})[kind])
    dataset = build(folder, pipeline=[LOAD])
    pixels = dataset[0]['img']
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8
    if mode in ('RGB', 'RGBA'):
        expected = np.asarray(source)[:, :, ::-1]
    elif mode in ('L', 'LA', 'I;16'):
        expected = np.asarray(source.convert('L').convert('RGB'))
    elif mode == 'CMYK':
        expected = np.asarray(source)[:, :, ::-1]
    else:
        expected = np.asarray(image.convert('RGB'))[:, :, ::-1]
    tolerance = 0 if kind == 'png' else 2
    assert np.abs(pixels.astype(int) - expected).mean() <= tolerance


@needs_data
def test_pixels_of_photographs_equal_pillows():
    dataset = build(
        '',
        data_root=str(DATA / 'coco128'),
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='images/val2017/'),
        metainfo=None,
        indices=20,
        pipeline=[LOAD],
    )
    for item in dataset:
        with Image.open(item['img_path']) as image:
            expected = np.asarray(image.convert('RGB'))
        np.testing.assert_array_equal(item['img'], expected[:, :, ::-1])


def test_unknown_arguments_are_an_error(tmp_path):
    with pytest.raises(TypeError, match='bad_dada'):
        build(write(tmp_path), bad_dada='skip')


def test_class_balanced_sampling_finds_the_labels(tmp_path):
    dataset = DATASETS.build(
        dict(
            type='ClassBalancedDataset',
            oversample_thr=0.9,
            dataset=build(write(tmp_path)),
        )
    )
    assert len(dataset) > 3


def test_a_loader_of_mmengine_delivers_all_images(tmp_path):
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='RFDETRCocoDataset',
                data_root=str(write(tmp_path)),
                ann_file='annotations.json',
                data_prefix=dict(img=''),
                metainfo=dict(classes=ANIMALS),
                pipeline=PIPELINE,
            ),
        )
    )
    assert isinstance(loader.dataset, RFDETRCocoDataset)
    (batch,) = loader
    assert [len(s.gt_instances) for s in batch['data_samples']] == [2, 1, 1]


def test_a_file_of_test_images_has_no_objects(tmp_path):
    data = document()
    del data['annotations']
    assert build(write(tmp_path, data), test_mode=True).object_counts == [0, 0, 0]


def test_the_search_for_circles_pauses_and_goes_on(tmp_path):
    """As it was before, and after an error too."""
    seen = []

    class Watched(RFDETRCocoDataset):
        def load_data_list(self):
            seen.append(gc.get_threshold())
            return super().load_data_list()

    before = gc.get_threshold()
    settings = dict(data_root=str(write(tmp_path)), data_prefix=dict(img=''))
    settings.update(metainfo=dict(classes=ANIMALS))
    Watched(ann_file='annotations.json', **settings)
    with pytest.raises(FileNotFoundError):
        Watched(ann_file='missing.json', **settings)
    assert [threshold[0] for threshold in seen] == [0, 0]
    assert gc.get_threshold() == before
