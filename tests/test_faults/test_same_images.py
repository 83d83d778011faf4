"""Images are known by their files: several data sets, and evaluators of others."""

import json

import pytest
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import BadDataError, SettingError
from mmdet_rfdetr.faults import same_images

from ..test_evaluation.named_sets import CLASSES, evaluate, metric, settings, write


@pytest.fixture
def sets(tmp_path):
    """Two sets of the same ids, of which the files have other names."""
    return [write(tmp_path / name, name, seed) for seed, name in enumerate('st')]


def concat(folders, **changes):
    datasets = [settings(folder, **changes) for folder in folders]
    return dict(type='ConcatDataset', datasets=datasets)


@pytest.mark.parametrize('palettes', ['same', 'different'])
def test_each_of_several_sets_has_its_metric(sets, palettes):
    dataset = concat(sets)
    if palettes == 'different':  # then mmdet has a list of metainfos
        dataset['datasets'][1]['metainfo'] = dict(classes=CLASSES, palette=[(0, 0, 0)])
    found = evaluate(dataset, *map(metric, sets), prefixes=['s', 't'])
    assert found['s/coco/bbox_mAP'] == found['t/coco/bbox_mAP'] == 1


@pytest.mark.parametrize('ids', [None, ('1', '01', '001')])
def test_sets_that_are_joined_are_evaluated_by_their_samples(tmp_path, ids):
    folders = [
        write(tmp_path / name, seed=seed, ids=ids) for seed, name in enumerate('st')
    ]
    assert evaluate(concat(folders), metric(None))['coco/bbox_mAP'] == 1


def test_sets_that_are_joined_may_have_fewer_classes(sets):
    dataset = concat(sets)
    dataset['datasets'][1]['metainfo'] = dict(classes=CLASSES[:1])
    assert evaluate(dataset, metric(None))['coco/bbox_mAP'] == 1


def test_samples_without_ground_truth_need_a_file(sets):
    built = METRICS.build(metric(None))
    sample = dict(img_id=1, ori_shape=(9, 9), pred_instances={})
    with pytest.raises(SettingError, match="add 'instances' to meta_keys"):
        built.process({}, [sample])


def test_sets_that_are_joined_have_no_result_files(sets, tmp_path):
    prefix = str(tmp_path / 'out')
    with pytest.raises(SettingError, match='cannot tell apart.*MultiDatasetsEvaluator'):
        evaluate(concat(sets), metric(None, outfile_prefix=prefix))


def test_a_joined_file_describes_all_sets(tmp_path):
    folders = [
        write(tmp_path / name, name, seed, ids=[f'{name}{n}' for n in range(3)])
        for seed, name in enumerate('st')
    ]
    documents = [json.loads((f / 'annotations.json').read_text()) for f in folders]
    joined = dict(
        documents[0],
        images=[image for document in documents for image in document['images']],
        annotations=[a for document in documents for a in document['annotations']],
    )
    (tmp_path / 'annotations.json').write_text(json.dumps(joined))
    assert evaluate(concat(folders), metric(tmp_path))['coco/bbox_mAP'] == 1


def test_a_set_that_is_repeated_is_evaluated_once(sets):
    repeated = dict(type='RepeatDataset', dataset=settings(sets[0]), times=2)
    assert evaluate(repeated, metric(sets[0]))['coco/bbox_mAP'] == 1


@pytest.mark.parametrize('names', ['other', 'same'])
def test_two_sets_of_the_same_ids_are_not_one(tmp_path, names):
    folders = [
        write(tmp_path / name, name if names == 'other' else 'p', seed)
        for seed, name in enumerate('st')
    ]
    with pytest.raises(BadDataError, match=r'one: .*MultiDatasetsEvaluator') as error:
        evaluate(concat(folders), metric(folders[0]))
    for folder in folders:
        assert str(folder) in str(error.value)


def test_an_evaluator_of_another_file(sets):
    with pytest.raises(BadDataError, match='the same ann_file') as error:
        evaluate(settings(sets[1]), metric(sets[0]))
    assert 's/annotations.json: its image 1 is s0.png' in str(error.value)
    assert f'{sets[1] / "t0.png"} of 40 x 60 pixels was evaluated' in str(error.value)


def test_an_evaluator_of_images_of_another_size(tmp_path):
    """Known by the size alone, where objects do not fit."""
    first, second = write(tmp_path / 's', size=(90, 90), seed=50), write(tmp_path / 't')
    with pytest.raises(BadDataError, match=r'png of 90 x 90.*png of 40 x 60'):
        evaluate(settings(second), metric(first))


def test_images_that_the_evaluator_does_not_list(sets, tmp_path):
    other = write(tmp_path / 'u', count=5)
    with pytest.raises(
        BadDataError, match=r'2 images were evaluated.*p3\.png'
    ) as error:
        evaluate(settings(other), metric(sets[0]))
    assert str(sets[0] / 'annotations.json') in str(error.value)


def rename(change):
    return lambda image: image.update(file_name=change(image['file_name']))


@pytest.mark.parametrize(
    'change',
    [
        rename('images/{}'.format),
        rename('C:\\data\\{}'.format),
        rename(lambda name: name.replace('.png', '.JPG')),
        rename(lambda name: name.replace('p', '%70', 1)),
        rename(str.upper),
        lambda image: image.update(height=60, width=40),  # turned
        lambda image: image.update(height=0, width=0),
        lambda image: image.update(height=30, width=30),
        lambda image: image.pop('height'),
        lambda image: image.update(id=str(image['id'])),
        lambda image: image.update(id=float(image['id'])),
    ],
)
def test_the_same_images_in_other_words(tmp_path, change):
    """An evaluator may read a file that was converted, moved or exported anew."""
    folder = write(tmp_path / 'set')
    document = json.loads((folder / 'annotations.json').read_text())
    for image in document['images']:
        change(image)
    (tmp_path / 'annotations.json').write_text(json.dumps(document))
    assert evaluate(settings(folder), metric(tmp_path))['coco/bbox_mAP'] == 1


def test_a_few_sizes_may_be_wrong(tmp_path):
    folder = write(tmp_path / 'set')
    path = folder / 'annotations.json'
    document = json.loads(path.read_text())
    document['images'][0].update(height=300, width=300)
    path.write_text(json.dumps(document))
    assert evaluate(settings(folder), metric(folder))['coco/bbox_mAP'] == 1


def test_samples_without_names_are_a_warning(monkeypatch):
    lines = []
    monkeypatch.setattr(
        same_images, 'print_log', lambda text, logger, level: lines.append(text)
    )
    target = dict(img_id='7', height=5, width=5)
    image = dict(id=7, file_name='a.png', height=5, width=5)
    found = same_images.find_images([target], {7: image}, {}, 'val.json')
    assert found == [7]
    (text,) = lines
    assert "add 'img_path' to meta_keys" in text


def test_images_of_the_same_id_without_names():
    targets = [dict(img_id=1), dict(img_id='1')]
    with pytest.raises(BadDataError, match="add 'img_path'"):
        same_images.number_images(targets)
