"""Images that turn out to be broken, and the loaders that read them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from PIL import Image

from mmdet_rfdetr.errors import BadDataError
from tests.factory import DOCUMENT, PIPELINE, build, write


def cut(path):
    """Leave the header and the first half of the pixels."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_a_file_cut_off_is_skipped_in_training(tmp_path):
    dataset = build(write(tmp_path))
    cut(tmp_path / 'b.jpg')
    shapes = {dataset[1]['data_samples'].img_path.rpartition('/')[2] for _ in range(9)}
    assert shapes == {'a.jpg', 'c.jpg'}
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_file_cut_off_is_black_in_evaluation(tmp_path):
    dataset = build(write(tmp_path), test_mode=True)
    cut(tmp_path / 'b.jpg')
    item = dataset[1]
    assert item['inputs'].shape == (3, 32, 32)
    assert item['inputs'].max() == 0
    assert item['data_samples'].ori_shape == (60, 40)
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_file_cut_off_stops_under_the_policy_error(tmp_path):
    dataset = build(write(tmp_path), bad_data='error')
    cut(tmp_path / 'b.jpg')
    with pytest.raises(BadDataError, match='b.jpg.*bad_data'):
        dataset[1]


def test_a_file_that_goes_missing_is_skipped(tmp_path):
    dataset = build(write(tmp_path))
    (tmp_path / 'c.jpg').unlink()
    assert dataset[2] is not None
    assert dataset.unreadable.tolist() == [False, False, True]


def test_faults_of_the_pipeline_are_not_taken_for_bad_data(tmp_path):
    def broken(results):
        raise OSError('a bug')

    dataset = build(write(tmp_path), pipeline=[PIPELINE[0], broken])
    with pytest.raises(OSError, match='a bug'):
        dataset[0]


@pytest.mark.parametrize(
    'start_method', ['fork', pytest.param('spawn', marks=pytest.mark.long)]
)
def test_workers_share_what_they_find(tmp_path, start_method):
    dataset = build(write(tmp_path))
    cut(tmp_path / 'a.jpg')
    loader = torch.utils.data.DataLoader(
        dataset,
        num_workers=1,
        collate_fn=len,
        multiprocessing_context=start_method,
    )
    list(loader)
    assert dataset.unreadable.tolist() == [True, False, False]


def test_subsets_know_their_broken_files(tmp_path):
    dataset = build(write(tmp_path), indices=[2])
    cut(tmp_path / 'c.jpg')
    dataset.prepare_data(0)
    assert dataset.unreadable.tolist() == [False, False, True]
    assert len(build(tmp_path).get_subset([1, 0])) == 2


def test_a_run_reports_broken_files_at_the_end_of_an_epoch(tmp_path, monkeypatch):
    from mmdet_rfdetr.faults import bad_data_hook

    lines = []
    monkeypatch.setattr(
        bad_data_hook, 'print_log', lambda text, **kwargs: lines.append(text)
    )
    dataset = build(write(tmp_path))
    repeated = DATASETS.build(dict(type='RepeatDataset', dataset=dataset, times=2))
    cut(tmp_path / 'b.jpg')
    cut(tmp_path / 'c.jpg')

    class FakeRunner:
        class train_dataloader:
            dataset = repeated

    hook = bad_data_hook.RFDETRBadDataHook()
    hook.after_train_epoch(FakeRunner)
    assert lines == []
    dataset[1], dataset[2]
    hook.after_train_epoch(FakeRunner)
    hook.after_train_epoch(FakeRunner)
    (line,) = lines
    assert line.startswith('2 of 3 images could not be read and were skipped')
    assert str(tmp_path / 'b.jpg') in line


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
def test_a_loader_of_other_pixels_than_the_official_is_logged(
    tmp_path, told, color_type
):
    load = dict(type='LoadImageFromFile', color_type=color_type)
    build(write(tmp_path), pipeline=[load])
    texts = [text for text, _ in told if 'RFDETRLoadImage' in text]
    assert len(texts) == (color_type == 'color')


UNCHANGED = dict(type='LoadImageFromFile', color_type='unchanged')


def four_channels(folder):
    """The sound document with images that only ``unchanged`` reads as they are."""
    write(folder)
    for image in DOCUMENT['images']:
        size = image['height'], image['width']
        pixels = np.random.RandomState(0).randint(256, size=(*size, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image['file_name'], 'png')
    return folder


def test_a_loader_of_the_user_stays(tmp_path):
    item = build(four_channels(tmp_path), pipeline=[UNCHANGED])[0]
    with Image.open(tmp_path / 'a.jpg') as image:
        expected = np.asarray(image)[:, :, [2, 1, 0, 3]]
    np.testing.assert_array_equal(item['img'], expected)


def become_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize(
    'damage',
    [cut, Path.unlink, lambda path: path.write_bytes(b''), become_pipe],
    ids=['cut', 'missing', 'empty', 'pipe'],
)
def test_a_broken_file_is_skipped_by_a_loader_of_the_user(tmp_path, damage, backend):
    load = dict(UNCHANGED, imdecode_backend=backend)
    dataset = build(four_channels(tmp_path), pipeline=[load])
    damage(tmp_path / 'b.jpg')
    assert dataset.prepare_data(1) is None
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_file_that_a_loader_cannot_decode_is_skipped(tmp_path):
    dataset = build(four_channels(tmp_path), pipeline=[UNCHANGED])
    path = tmp_path / 'b.jpg'
    with Image.open(path) as image:
        image.save(path, 'tga')  # which Pillow reads and OpenCV does not
    assert dataset.prepare_data(1) is None
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_broken_file_is_black_like_the_others(tmp_path):
    pipeline = [dict(UNCHANGED, to_float32=True)]
    dataset = build(four_channels(tmp_path), pipeline=pipeline, test_mode=True)
    cut(tmp_path / 'a.jpg')
    cut(tmp_path / 'b.jpg')
    black = dataset[1]['img']
    assert black.shape == (60, 40, 4)
    assert black.dtype == np.float32
    assert black.max() == 0


def test_a_loader_that_reads_nothing_is_named(tmp_path):
    dataset = build(four_channels(tmp_path), pipeline=[UNCHANGED], test_mode=True)
    for image in DOCUMENT['images']:
        cut(tmp_path / image['file_name'])
    with pytest.raises(BadDataError, match='nor any other image .*unchanged'):
        dataset[1]


def test_a_wrong_argument_of_a_loader_is_not_taken_for_bad_data(tmp_path):
    load = dict(UNCHANGED, imdecode_backend='tiff')
    dataset = build(four_channels(tmp_path), pipeline=[load])
    with pytest.raises(ValueError, match='backend: tiff is not supported'):
        dataset[1]
