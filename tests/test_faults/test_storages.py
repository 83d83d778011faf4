"""Data that lie elsewhere than in files: backend_args, as MMDetection has them."""

import pytest
from mmdet.registry import METRICS
from mmengine import fileio
from mmengine.fileio.backends.registry_utils import backends, prefix_to_backends
from torch.utils.data import DataLoader

from mmdet_rfdetr.errors import BadDataError, BadImageError
from mmdet_rfdetr.faults.check import decode_all
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import LOAD, PIPELINE, build, metric, write


class Shelf(fileio.BaseStorageBackend):
    """A storage of a project's own: names begin with ``shelf://``."""

    content = {}

    def get(self, filepath):
        if str(filepath) not in self.content:
            raise FileNotFoundError(filepath)
        return self.content[str(filepath)]

    def get_text(self, filepath, encoding='utf-8'):
        return self.get(filepath).decode(encoding)

    def join_path(self, filepath, *filepaths):
        return '/'.join((str(filepath).rstrip('/'), *filepaths))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with annotations and three images."""
    monkeypatch.setattr(fileio.io, 'backend_instances', {})
    return write(tmp_path / 'files')


@pytest.fixture
def shelf(files, monkeypatch):
    monkeypatch.setitem(backends, 'shelf', Shelf)
    monkeypatch.setitem(prefix_to_backends, 'shelf', Shelf)
    content = {
        f'shelf://of/mine/{path.name}': path.read_bytes() for path in files.iterdir()
    }
    monkeypatch.setattr(Shelf, 'content', content)
    return 'shelf://of/mine', dict(backend='shelf')


@pytest.fixture
def by_prefix(shelf):
    return shelf[0], None


@pytest.fixture
def database(files, tmp_path):
    lmdb = pytest.importorskip('lmdb')
    path = str(tmp_path / 'data.lmdb')
    with lmdb.open(path, map_size=2**22) as opened, opened.begin(write=True) as writing:
        for file in files.iterdir():
            writing.put(f'mine/{file.name}'.encode(), file.read_bytes())
    return 'mine', dict(backend='lmdb', db_path=path)


@pytest.fixture
def plain(files):
    return str(files), dict(backend='local')


def dataset(root, annotations_from, images_from=None, **changes):
    load = dict(LOAD, backend_args=images_from or annotations_from)
    pipeline = [load, *PIPELINE[1:]]
    return build(root, pipeline=pipeline, backend_args=annotations_from, **changes)


def identical(one, other):
    assert len(one) == len(other) == 3
    for first, second in zip(one, other, strict=True):
        assert first['inputs'].equal(second['inputs'])
        boxes = (x['data_samples'].gt_instances.bboxes.tensor for x in (first, second))
        assert next(boxes).equal(next(boxes))
    return True


STORAGES = ['plain', 'shelf', 'by_prefix', 'database']


@pytest.mark.parametrize('storage', STORAGES)
def test_annotations_and_pixels_are_those_of_the_files(files, storage, request):
    root, backend_args = request.getfixturevalue(storage)
    stored = dataset(root, backend_args)
    assert identical(list(stored), list(build(files)))
    decode_all(stored)
    assert not stored.findings.counts
    config = metric(files) | dict(backend_args=backend_args)
    index = METRICS.build(config | dict(ann_file=f'{root}/annotations.json'))._coco_api
    assert index.dataset == METRICS.build(metric(files))._coco_api.dataset


def test_workers_read_a_database_that_the_main_process_has_opened(files, database):
    stored = dataset(*database)
    loader = DataLoader(stored, num_workers=2, collate_fn=lambda batch: batch[0])
    assert identical(list(loader), list(build(files)))


def test_annotations_may_be_files_and_images_elsewhere(files, database):
    root, backend_args = database
    images = dict(data_root='', data_prefix=dict(img=root))
    annotations = str(files / 'annotations.json')
    stored = dataset(root, None, backend_args, ann_file=annotations, **images)
    assert identical(list(stored), list(build(files)))


@pytest.mark.parametrize('test_mode', [False, True])
def test_an_image_that_a_storage_lacks_is_a_broken_one(
    files, database, tmp_path, test_mode
):
    root, backend_args = database
    lmdb = pytest.importorskip('lmdb')
    with (
        lmdb.open(backend_args['db_path']) as opened,
        opened.begin(write=True) as writing,
    ):
        writing.delete(b'mine/b.jpg')
    stored = dataset(root, backend_args, test_mode=test_mode)
    with pytest.raises(BadImageError, match='mine/b.jpg: absent'):
        stored.pipeline.transforms[0](stored.get_data_info(1))
    found = stored.prepare_data(1)
    if test_mode:
        assert not found['inputs'].any()
    else:
        assert found is None
    assert stored.unreadable.tolist() == [False, True, False]
    decode_all(stored)
    assert stored.findings.examples[Finding.FILE_EMPTY] == ['b.jpg']


@pytest.mark.parametrize('storage', ['shelf', 'database'])
def test_a_storage_without_any_of_the_images_is_told_at_once(storage, request):
    root, backend_args = request.getfixturevalue(storage)
    elsewhere = dict(data_prefix=dict(img='elsewhere'))
    with pytest.raises(BadDataError) as error:
        dataset(root, backend_args, **elsewhere)
    assert f'{root}/elsewhere/a.jpg: ' in str(error.value)
    assert f'backend_args={backend_args}' in str(error.value)
    assert 'data_prefix' in str(error.value)
    # Whoever wants no look at images gets none.
    assert len(dataset(root, backend_args, check_images=False, **elsewhere)) == 3


@pytest.mark.parametrize('storage', ['shelf', 'database'])
def test_annotations_that_a_storage_lacks_are_one_sentence(storage, request):
    _, backend_args = request.getfixturevalue(storage)
    root = 'shelf://of/others' if storage == 'shelf' else 'others'
    with pytest.raises((BadDataError, FileNotFoundError)) as error:
        dataset(root, backend_args)
    assert f'{root}/annotations.json' in str(error.value)
    assert 'set data_root' in str(error.value) and '\n' not in str(error.value)


def test_a_storage_that_is_none_is_told_with_what_it_was_called(files, tmp_path):
    for backend_args, said in [
        (dict(backend='lmbd', db_path='x'), 'lmbd'),
        (dict(backend='lmdb', db_path=str(tmp_path / 'no.lmdb')), 'no.lmdb'),
    ]:
        pytest.importorskip('lmdb')
        with pytest.raises(BadDataError, match=f'{said}.* set data_root.*backend_args'):
            dataset(str(files), backend_args)
        with pytest.raises(BadDataError, match=f'{said}.* set data_root.*backend_args'):
            dataset(str(files), None, backend_args)
