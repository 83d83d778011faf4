"""``tools/train_on.py``: from a folder of data to a config and a run."""

import json
import os
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from rfdetr_datasets import find_dataset

from mmdet_rfdetr.command_line import overview
from mmdet_rfdetr.command_line.main import main
from mmdet_rfdetr.command_line.train_on import set_apart
from tests.factory import CLASSES, coco, write
from tests.fixtures import DATA, needs_data

COUNTS = dict(train=(2, 0, 1, 3, 1, 2), val=(1, 2))
# Width and height of the drawn images.
WIDTH, HEIGHT = 64, 48
TINY = [
    'model.backbone.embed_dims=24',
    'model.backbone.num_heads=2',
    'model.backbone.out_indices=(1,2)',
    'model.neck.in_channels=(24,24)',
    'model.neck.out_channels=16',
    'model.neck.num_blocks=1',
    'model.decoder.num_layers=1',
    'model.decoder.self_attn_heads=2',
    'model.decoder.cross_attn_heads=2',
    'model.decoder.feedforward_channels=32',
    'model.num_queries=12',
    'model.num_groups=2',
    'model.test_cfg.max_per_img=10',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]


ONE_EPOCH = ['--epochs', 1, '--image-size', 64, '--batch-size', 2, '--device', 'cpu']
ONE_EPOCH += ['--cfg-options', *TINY]


def documents(**changes):
    """A document of each split; names of files tell them apart."""
    counts = COUNTS | changes
    return {
        split: coco(numbers, (HEIGHT, WIDTH), stem=f'{split}_', seed=seed)
        for seed, (split, numbers) in enumerate(counts.items())
        if numbers
    }


def as_coco(folder, **changes):
    for split, document in documents(**changes).items():
        write(folder / 'images' / split, document, document)
        (folder / 'annotations').mkdir(exist_ok=True)
        os.rename(
            folder / 'images' / split / 'annotations.json',
            folder / 'annotations' / f'instances_{split}2017.json',
        )


def as_roboflow(folder, **changes):
    for split, document in documents(**changes).items():
        place = folder / {'val': 'valid'}.get(split, split)
        write(place, document, document)
        os.rename(place / 'annotations.json', place / '_annotations.coco.json')


def objects_of(document, image):
    """Class and corners of the boxes of an image."""
    for each in document['annotations']:
        if each['image_id'] == image['id']:
            x, y, width, height = each['bbox']
            yield each['category_id'] - 1, (x, y, x + width, y + height)


def as_yolo(folder, **changes):
    for split, document in documents(**changes).items():
        write(folder / 'images' / split, document, document)
        (folder / 'images' / split / 'annotations.json').unlink()
        (folder / 'labels' / split).mkdir(parents=True)
        for image in document['images']:
            lines = [
                f'{label} {(x + right) / 2 / WIDTH} {(y + bottom) / 2 / HEIGHT} '
                f'{(right - x) / WIDTH} {(bottom - y) / HEIGHT}\n'
                for label, (x, y, right, bottom) in objects_of(document, image)
            ]
            if lines:
                path = folder / 'labels' / split / image['file_name']
                path.with_suffix('.txt').write_text(''.join(lines))
    splits = ''.join(f'{split}: images/{split}\n' for split in documents(**changes))
    (folder / 'data.yaml').write_text(f'{splits}names: {list(CLASSES)}\n')


def as_voc(folder, **changes):
    for name in ('Annotations', 'ImageSets/Main'):
        (folder / name).mkdir(parents=True)
    for split, document in documents(**changes).items():
        write(folder / 'JPEGImages', document, document)
        (folder / 'JPEGImages' / 'annotations.json').unlink()
        stems = [Path(image['file_name']).stem for image in document['images']]
        (folder / f'ImageSets/Main/{split}.txt').write_text('\n'.join(stems))
        for image, stem in zip(document['images'], stems, strict=True):
            objects = ''.join(
                f'<object><name>{CLASSES[label]}</name><bndbox><xmin>{x}</xmin>'
                f'<ymin>{y}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>'
                '</object>'
                for label, (x, y, right, bottom) in objects_of(document, image)
            )
            (folder / f'Annotations/{stem}.xml').write_text(
                f'<annotation><filename>{image["file_name"]}</filename><size>'
                f'<width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth>'
                f'</size>{objects}</annotation>'
            )


def as_csv(folder, **changes):
    for split, document in documents(**changes).items():
        write(folder / split, document, document)
        (folder / split / 'annotations.json').unlink()
        rows = ['filename,class,xmin,ymin,xmax,ymax']
        for image in document['images']:
            for label, box in objects_of(document, image):
                corners = ','.join(map(str, box))
                rows.append(f'{image["file_name"]},{CLASSES[label]},{corners}')
        (folder / split / '_annotations.csv').write_text('\n'.join(rows))


WRITERS = dict(coco=as_coco, roboflow=as_roboflow, yolo=as_yolo, voc=as_voc, csv=as_csv)


def read(name):
    """The data sets and metrics of a config of the current folder."""
    cfg = Config.fromfile(name)
    assert cfg.model.bbox_head.num_classes == len(cfg.classes)
    built = {
        split: DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        for split in ('train', 'val', 'test')
    }
    for split in ('val', 'test'):
        metric = METRICS.build(cfg[f'{split}_evaluator'])
        metric.dataset_meta = built[split].metainfo
        images = metric._coco_api.imgs
        assert len(images) == len(built[split])
    return cfg, built


def column(said, what):
    """The figures of a row of the table."""
    (line,) = re.findall(rf'^{what} {{2,}}(.*)$', said, re.MULTILINE)
    return re.split(r' {2,}', line)


@pytest.mark.parametrize('kind', WRITERS)
def test_a_config_is_written_for_what_is_found(train_on, tmp_path, kind):
    folder = tmp_path / 'my data'
    WRITERS[kind](folder)
    said = train_on(folder, '--dry-run', '--epochs', 7, '--image-size', 64)
    cfg, built = read('my-data_nano.py')
    assert len(built['test']) == len(built['val'])
    empty = kind != 'csv'  # which lists boxes alone
    counts = {split: [*filter(None, COUNTS[split])] for split in COUNTS}
    for split, numbers in counts.items():
        numbers = COUNTS[split] if empty else numbers
        assert built[split].object_counts == list(numbers)
        assert built[split].metainfo['classes'] == CLASSES
        assert Path(built[split][0]['data_samples'].img_path).is_file()
    assert column(said, 'objects') == ['9', '3']
    assert column(said, 'images') == ['6' if empty else '5', '2']
    assert column(said, 'width x height') == ['64 x 48'] * 2
    assert (cfg.train_cfg.max_epochs, cfg.image_size) == (7, 64)
    assert (f'{kind.upper()} says nothing of' in said) == (
        kind in ('yolo', 'voc', 'csv')
    )
    assert sorted(path.name for path in Path().iterdir()) == [
        'my-data_nano.png',
        'my-data_nano.py',
    ]
    lines = Path('my-data_nano.py').read_text().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 88 or str(tmp_path) in max(lines, key=len)


@pytest.mark.parametrize(
    'kind',
    [
        'yolo',
        *(
            pytest.param(kind, marks=pytest.mark.long)
            for kind in ('coco', 'voc', 'csv')
        ),
    ],
)
def test_a_part_is_set_apart_where_nothing_is_for_validation(train_on, tmp_path, kind):
    folder = tmp_path / 'data'
    WRITERS[kind](folder, train=[1] * 10, val=None)
    said = train_on(folder, '--dry-run')
    assert 'no split for validation: 20% of the images, drawn with seed 0' in said
    names = {
        split: {Path(info['img_path']).name for info in data}
        for split, data in read('data_nano.py')[1].items()
        for data in [[data.get_data_info(index) for index in range(len(data))]]
    }
    assert names['val'] == names['test']
    assert (len(names['train']), len(names['val'])) == (8, 2)
    assert names['train'] | names['val'] == {f'train_{n}.png' for n in range(10)}
    written = {path: path.read_bytes() for path in Path().iterdir()}
    train_on(folder, '--dry-run')
    assert {path: path.read_bytes() for path in Path().iterdir()} == written


def test_copies_of_an_image_stay_together(tmp_path):
    document = coco([1] * 12)
    for number, image in enumerate(document['images']):
        image['file_name'] = f'{number // 3}_jpg.rf.{number:032x}.png'
    write(tmp_path / 'data', document, document)
    parts = set_apart(find_dataset(str(tmp_path / 'data')), tmp_path / 'x.py')
    part = json.loads(parts[tmp_path / 'x_val.json'])
    origins = [image['file_name'].split('.')[0] for image in part['images']]
    assert len(origins) == 3
    assert len(set(origins)) == 1


@pytest.mark.long
def test_a_split_for_testing_is_used(train_on, tmp_path):
    as_roboflow(tmp_path / 'data', test=(1, 1, 1))
    said = train_on(tmp_path / 'data', '--dry-run')
    assert column(said, 'images') == ['6', '2', '3']
    assert len(read('data_nano.py')[1]['test']) == 3


def test_masks_are_drawn_and_learned(train_on, tmp_path):
    as_coco(tmp_path / 'data')
    said = train_on(tmp_path / 'data', '--dry-run', '--seg', '--model', 'small')
    assert column(said, 'with a mask') == ['9', '3']
    cfg, built = read('data_seg-small.py')
    assert 'mask_head' in cfg.model
    assert len(built['train'][0]['data_samples'].gt_instances.masks) == 2
    step = dict(type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True)
    shown = [found for _, found in overview.samples(built['train'], step, 3)]
    assert [len(found.masks) for found in shown] == [len(found) for found in shown]
    assert min(map(len, shown)) > 0  # an image without objects comes last


def test_many_classes_are_summed_up():
    counts = Counter({label: 30 - label for label in range(25)})
    names = [f'class {label}' for label in range(30)]
    said = overview.table({'train': ({'images': 9}, counts)}, names)
    assert len(re.findall('^class ', said, re.MULTILINE)) == 20
    assert column(said, 'class 19') == ['11']
    assert said.endswith('and 5 more classes with objects\n5 classes without objects')


@pytest.mark.parametrize('again', [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_model_is_trained(train_on, tmp_path, monkeypatch, again):
    as_coco(tmp_path / 'data')
    arguments = ['--epochs', 1, '--image-size', 64, '--batch-size', 2]
    arguments += [
        '--device',
        'cpu',
        '--config',
        'more/new.py',
        '--work-dir',
        'runs/a b',
    ]
    arguments += ['--cfg-options', *TINY]
    if again:
        said = train_on(tmp_path / 'data', '--dry-run', *arguments)
        assert not Path('runs').exists()
        command = shlex.split(re.findall('^  (CUDA_.*)$', said, re.MULTILINE)[0])
        assert command[:4] == ['CUDA_VISIBLE_DEVICES=', 'python', '-m', 'mmdet_rfdetr']
        monkeypatch.setattr(sys, 'argv', command[3:])
        main()
    else:
        train_on(tmp_path / 'data', *arguments)
    assert Path('more/new.png').is_file()
    (log,) = Path('runs/a b').glob('*/*.log')
    text = log.read_text()
    assert 'Epoch(train) [1][3/3]' in text
    assert 'coco/bbox_mAP:' in text
    assert Path('runs/a b/epoch_1.pth').is_file()


# --- Mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--model', 'smal'], "no --model 'smal'; did you mean small?"),
        (['--model', 'base', '--seg'], "no --model 'base' with --seg; choose from 2xl"),
        (['--model', 'large', '--pose'], "no --model 'large' with --pose; choose from"),
        (['--seg', '--pose'], 'not allowed with'),
        (['--epochs', '0'], "'0' is no whole number above 0"),
        (['--device', 'tpu'], "'tpu' is none of cpu, cuda"),
        (['--weights', 'no.pth'], "weights 'no.pth' does not exist"),
    ],
)
def test_mistyped_arguments(train_on, tmp_path, capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        train_on(tmp_path, *arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--image-size', 100], 'image_size=100 must be a multiple of 32.*96 or 128'),
        (['--seg'], '--seg learns masks, and the objects have boxes only'),
        (['--batch-size', 9], '9 images and there are 6: --batch-size 6'),
        (['--device', 'cuda'], '--device cuda: PyTorch sees no such GPU'),
        (['--work-dir', 'file'], 'file cannot be written'),
        (['--config', 'file/x.py'], 'file cannot be written'),
        (['--cfg-options', 'modle.num_queries=1'], 'did you mean model'),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_written(
    train_on, tmp_path, arguments, said
):
    as_coco(tmp_path / 'data')
    for path in tmp_path.glob('data/annotations/*.json'):
        path.write_text(path.read_text().replace('segmentation', 'none'))
    Path('file').touch()
    with pytest.raises(SystemExit, match=f'^error: .*{said}'):
        # Where there is no mistake, nothing is to be trained.
        train_on(
            tmp_path / 'data',
            *arguments,
            *['--dry-run'][arguments[0] == '--work-dir' :],
        )
    assert not [*Path().glob('*.p*'), *Path().glob('*.json')]


def other_classes(folder):
    as_coco(folder)
    path = folder / 'annotations' / 'instances_val2017.json'
    path.write_text(path.read_text().replace('"name": "b"', '"name": "B"'))


def one_image(folder):
    as_coco(folder, train=[1], val=None)


def only_validation(folder):
    as_coco(folder, train=None)


def no_images(folder):
    as_coco(folder)
    for path in folder.glob('images/*/*.png'):
        path.unlink()


def code_as_class(folder):
    as_yolo(folder)
    path = folder / 'data.yaml'
    name = '{{$NOTHING:1)or(open("trace","w")}}'
    path.write_text(path.read_text().replace("'a'", repr(name)))


@pytest.mark.parametrize(
    ('spoil', 'said'),
    [
        (other_classes, r"instances_val2017.*\('B',\).*Did you mean 'B' \(not 'b'\)"),
        (one_image, 'has 1 images, and two are needed'),
        (only_validation, 'no split for training, only val'),
        (no_images, 'images of .*instances_train2017.json are in none of the folders'),
        (Path.mkdir, 'holds no data set'),
        (code_as_class, "'{{' in its name"),
    ],
)
def test_data_that_cannot_be_used(train_on, tmp_path, spoil, said):
    spoil(tmp_path / 'data')
    with pytest.raises(SystemExit, match=f'^error: .*{said}') as stop:
        train_on(tmp_path / 'data', '--dry-run')
    assert '\n' not in str(stop.value)
    assert not [*Path().glob('*.*')]


def test_a_class_of_validation_alone_is_seen_in_the_table(train_on, tmp_path):
    as_voc(tmp_path / 'data')
    for path in tmp_path.glob('data/Annotations/train_*.xml'):
        path.write_text(path.read_text().replace('<name>b<', '<name>a<'))
    said = train_on(tmp_path / 'data', '--dry-run')
    assert column(said, 'b') == ['0', '1']


def test_a_mistake_does_not_stand_in_the_way_of_the_next_try(train_on, tmp_path):
    as_yolo(tmp_path / 'data', train=[1] * 4, val=None)
    with pytest.raises(SystemExit, match='--batch-size 3'):
        train_on(tmp_path / 'data', '--dry-run')
    train_on(tmp_path / 'data', '--dry-run', '--batch-size', 3)
    Path('data_nano.py').unlink()
    Path('data_nano.png').unlink()
    Path('data_nano_val.json').write_text('{}')
    with pytest.raises(SystemExit, match='data_nano_val.json is there'):
        train_on(tmp_path / 'data', '--dry-run', '--batch-size', 3)


def test_official_weights_have_to_be_there(train_on, tmp_path, monkeypatch, capsys):
    as_yolo(tmp_path / 'data')
    monkeypatch.setenv('RFDETR_WEIGHTS', str(tmp_path))
    arguments = [tmp_path / 'data', '--seg', '--weights', 'official']
    with pytest.raises(SystemExit) as stop:
        train_on(*arguments)
    assert stop.value.code == 2
    assert 'weights get seg-nano' in capsys.readouterr().err
    arguments.remove('--seg')
    train_on(*arguments, '--dry-run')
    assert read('data_nano.py')[0].load_from == 'rfdetr://nano'


def test_nothing_that_is_there_is_overwritten(train_on, tmp_path):
    as_coco(tmp_path / 'data')
    train_on(tmp_path / 'data', '--dry-run')
    Path('work_dirs/data_nano').mkdir(parents=True)
    Path('work_dirs/data_nano/epoch_1.pth').touch()
    with pytest.raises(
        SystemExit, match='data_nano is not empty.*data_nano.py --resume'
    ):
        train_on(tmp_path / 'data')
    with Path('data_nano.py').open('a') as config:
        config.write('# mine\n')
    with pytest.raises(SystemExit, match='data_nano.py is there.*by --config'):
        train_on(tmp_path / 'data', '--dry-run')
    Path('data_nano.py').rename('other.py')
    with pytest.raises(SystemExit, match='data_nano.png is there'):
        train_on(tmp_path / 'data', '--dry-run')
    assert Path('other.py').read_text().endswith('# mine\n')


# --- Real data -----------------------------------------------------------------------


@needs_data
@pytest.mark.long
def test_real_data_in_two_formats_are_the_same(train_on, tmp_path):
    counts = {}
    for name in ('bccd', 'coco128'):
        for kind, folder in real_data(tmp_path, name).items():
            said = train_on(folder, '--dry-run', '--config', f'{name}_{kind}.py')
            counts[name, kind] = [column(said, what) for what in ('images', 'objects')]
            read(f'{name}_{kind}.py')
    assert counts['bccd', 'coco'] == counts['bccd', 'voc']
    assert counts['coco128', 'coco'] == counts['coco128', 'yolo']


def real_data(folder, name):
    """The folders of a data set in two formats, as they are usually laid out."""
    if name == 'bccd':
        (folder / 'voc').mkdir()
        (folder / 'voc' / 'JPEGImages').symlink_to(DATA / 'bccd/images')
        for part in ('Annotations', 'ImageSets'):
            (folder / 'voc' / part).symlink_to(DATA / 'bccd/voc' / part)
        return dict(coco=DATA / 'bccd', voc=folder / 'voc')
    (folder / 'yolo').mkdir()
    for link, place in dict(
        images='images', labels='yolo_labels', data='yolo_data.yaml'
    ).items():
        link = link + Path(place).suffix
        (folder / 'yolo' / link).symlink_to(DATA / 'coco128' / place)
    return dict(coco=DATA / 'coco128', yolo=folder / 'yolo')
