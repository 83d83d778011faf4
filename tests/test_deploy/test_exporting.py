"""Exported files: what they hold, that they are the model, and that others are gone."""

import json
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rfdetr_runtime import find_objects, open_model, prepare
from rfdetr_runtime.backends import openvino_core
from torch import nn

from mmdet_rfdetr.deploy import exporting, layouts
from mmdet_rfdetr.deploy.pictures import pictures_of
from mmdet_rfdetr.deploy.settings import Options
from mmdet_rfdetr.errors import ExplainedError, MissingPackageError, SettingError
from tests.factory import CLASSES, SIDE, picture
from tests.interpreter import hide, run_code
from tests.test_datasets.folders import voc, xml, yolo
from tests.test_deploy.project import graphs_made_once

IMAGES = [np.asarray(picture(50, 70, 1)), np.asarray(picture(33, 90, 2))]


def require_the_same(project, path):
    file = open_model(path)
    outputs = file(prepare(IMAGES, file.metadata))
    sizes = [image.shape[:2] for image in IMAGES]
    found = find_objects(outputs, file.metadata, sizes)
    for ours, theirs in zip(found, project.detect(IMAGES), strict=True):
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.allclose(ours.scores, theirs.scores, atol=1e-5)
        assert np.allclose(ours.boxes, theirs.bboxes, atol=1e-2)
        assert len(ours) == 10 and ours.scores[0] > ours.scores[-1] + 0.05


def test_the_official_layout_is_that_of_the_official_file(project):
    path, rows = project.exported(batch=None, notes='of mine')
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [x.version for x in model.opset_import if not x.domain] == [20]
    shapes = {
        value.name: [
            axis.dim_param or axis.dim_value
            for axis in value.type.tensor_type.shape.dim
        ]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert list(shapes) == ['input', 'dets', 'labels']
    batch = shapes['input'][0]
    assert isinstance(batch, str)
    assert shapes['input'] == [batch, 3, SIDE, SIDE]
    assert shapes['dets'] == [batch, 6, 4]
    assert shapes['labels'] == [batch, 6, len(CLASSES) + 1]
    file = open_model(path)
    assert np.all(file(prepare(IMAGES, file.metadata))['labels'][..., -1] == -20)
    require_the_same(project, path)
    assert list(rows) == ['batch 1', 'batch 2', 'batch 5'][: len(rows)]
    assert all(one.images for one in rows.values())


def test_a_file_says_how_to_run_it(project):
    path, _ = project.exported(batch=None, notes='of mine')
    strings = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    metadata = open_model(path).metadata
    assert metadata.names == CLASSES and metadata.input_size == (SIDE, SIDE)
    assert metadata.batch is None and metadata.background == len(CLASSES)
    assert metadata.notes == 'of mine' and metadata.config == 'mine.py'
    assert metadata.mean == pytest.approx((123.675, 116.28, 103.53))
    assert len(metadata.checkpoint) == 64 and metadata.resize == 'antialias'
    assert metadata.max_detections == 10 and metadata.channel_order == 'RGB'
    assert eval(strings['names']) == dict(enumerate(CLASSES))
    assert json.loads(strings['imgsz']) == [SIDE, SIDE]
    assert strings['task'] == 'detect' and strings['stride'] == '8'
    assert strings['end2end'] == 'False' and strings['channels'] == '3'


def test_a_file_holds_no_path_of_this_machine(project):
    path, _ = project.exported(batch=None, notes='of mine')
    assert b'/mmdet_rfdetr/' not in path.read_bytes()


@pytest.mark.long
def test_detections_come_out_of_pixels(project):
    path, _ = project.exported(batch=2, layout='detections')
    file = open_model(path)
    pixels = prepare(IMAGES, file.metadata)
    assert pixels.dtype == np.uint8
    outputs = file(pixels)
    assert list(outputs) == ['boxes', 'scores', 'labels']
    assert outputs['boxes'].shape == (2, 10, 4) and outputs['boxes'].max() <= 1
    require_the_same(project, path)


@pytest.mark.long
@pytest.mark.parametrize('layout', ['mmdeploy', 'deepstream'])
def test_other_readers_find_the_same(project, layout):
    path, _ = project.exported(layout=layout)
    outputs = open_model(path)(prepare(IMAGES, open_model(path).metadata))
    shapes = {name: x.shape for name, x in outputs.items()}
    if layout == 'mmdeploy':
        assert shapes == dict(dets=(2, 10, 5), labels=(2, 10))
        assert outputs['labels'].dtype == np.int64
        assert 1 < outputs['dets'][..., :4].max() <= SIDE
    else:
        assert shapes == dict(output=(2, 10, 6))
        names = path.with_name(f'{path.stem}_labels.txt').read_text().splitlines()
        assert tuple(names) == CLASSES
        settings = path.with_name(f'{path.stem}_nvinfer.txt').read_text()
        assert f'onnx-file={path.name}\n' in settings and 'cluster-mode=4' in settings
    require_the_same(project, path)


@pytest.mark.parametrize(
    'to', ['openvino', pytest.param('pt2', marks=pytest.mark.long)]
)
def test_other_runtimes_find_the_same(project, to):
    path, _ = project.exported(to=to, batch=None)
    require_the_same(project, path)
    assert open_model(path).metadata.names == CLASSES


def test_openvino_keeps_the_order_of_ties(project):
    path, _ = project.exported(to='openvino', batch=None)
    kinds = [
        node.get_attributes()['stable']
        for node in openvino_core().read_model(path).get_ops()
        if node.get_type_name() == 'TopK'
    ]
    assert kinds and all(kinds)


def spoil(monkeypatch, change):
    """Let the writer change the graph that it has made."""
    write = exporting.write_onnx

    def write_wrong(module, example, path, strings):
        write(module, example, path, strings)
        model = onnx.load(path)
        change(model.graph)
        onnx.save(model, path)

    monkeypatch.setattr(exporting, 'write_onnx', write_wrong)


def move_boxes(graph):
    """A thousandth, which no picture shows."""
    node = next(node for node in graph.node if 'dets' in node.output)
    node.output[:] = ['boxes as they were']
    graph.initializer.append(numpy_helper.from_array(np.float32(1e-3), 'moved'))
    moved = onnx.helper.make_node('Add', ['boxes as they were', 'moved'], ['dets'])
    graph.node.append(moved)


def fix_batch(graph):
    """What a model becomes in silence that looks at the length of its batch."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del graph.value_info[:]


@pytest.mark.parametrize(
    ('change', 'reason'), [(move_boxes, 'not the model'), (fix_batch, 'batch 2')]
)
def test_a_file_that_is_not_the_model_is_removed(project, monkeypatch, change, reason):
    project.exported(batch=None, notes='of mine')
    path = project.folder / 'wrong.onnx'
    path.write_text('the one before')
    with graphs_made_once(project.shared), monkeypatch.context() as patch:
        spoil(patch, change)
        with pytest.raises(ExplainedError, match=reason):
            exporting.export(
                project.config(), project.checkpoint, path, Options(batch=None)
            )
        # A folder that was made for the file alone goes with it.
        with pytest.raises(ExplainedError, match=reason):
            exporting.export(
                project.config(),
                project.checkpoint,
                project.folder / 'new' / 'wrong.onnx',
                Options(batch=None),
            )
    assert path.read_text() == 'the one before'
    assert not list(project.folder.glob('.export-*'))
    assert not (project.folder / 'new').exists()


SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


@pytest.fixture
def mine():
    """A handler that stands after a test, and does not let SIGTERM end all of them."""

    def fail(*_):
        raise AssertionError('nobody took the signal')

    before = signal.signal(signal.SIGTERM, fail)
    yield
    assert signal.signal(signal.SIGTERM, before) is fail


@pytest.mark.parametrize('number', SIGNALS)
def test_an_export_that_is_ended_leaves_what_was_there(
    project, mine, number, monkeypatch
):
    project.exported(batch=None, notes='of mine')
    path = project.folder / 'ended.onnx'
    path.write_text('the one before')
    with graphs_made_once(project.shared), monkeypatch.context() as patch:
        spoil(patch, lambda graph: signal.raise_signal(number))
        with pytest.raises(SIGNALS[number]) as left:
            exporting.export(
                project.config(), project.checkpoint, path, Options(batch=None)
            )
    assert getattr(left.value, 'code', 143) == 143
    assert path.read_text() == 'the one before'
    assert not list(project.folder.glob('.export-*'))


@pytest.mark.parametrize(
    'number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_file_that_is_checked_is_kept_as_a_whole(project, mine, number, monkeypatch):
    project.exported(to='openvino', batch=None)
    replace = Path.replace

    def replace_one(path, target):
        replace(path, target)
        signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', replace_one)
        with pytest.raises(SIGNALS[number]):
            project.export(f'kept{number}', to='openvino', batch=None)
    assert open_model(project.folder / f'kept{number}.xml')
    assert not list(project.folder.glob('.export-*'))


def test_the_official_class_list_needs_no_column():
    network = nn.Identity()
    network.output_names = ('dets', 'labels')
    made = layouts.OfficialLayout(network, num_classes=91)
    boxes, logits = torch.zeros(1, 5, 4), torch.ones(1, 5, 91)
    assert made((boxes, logits))[1].shape == (1, 5, 91)
    assert layouts.OfficialLayout(network, num_classes=90)((boxes, logits[..., :90]))[
        1
    ].shape == (1, 5, 91)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (dict(to='pt2', precision='int8'), 'pt2.*int8'),
        (dict(to='openvino', layout='deepstream'), 'deepstream.*openvino'),
        (dict(batch=0), 'batch=0'),
        (dict(shape=(32, 0)), 'shape=0'),
        (dict(calibrate=0), 'calibrate=0'),
    ],
)
def test_options_that_do_not_go_together(options, named):
    with pytest.raises(SettingError, match=named):
        Options(**options)


def test_a_shape_that_does_not_divide_is_named(project):
    with pytest.raises(ExplainedError, match='30'):
        project.export('odd', shape=(30, 32))


def test_the_name_of_the_file_has_to_fit(project):
    with pytest.raises(SettingError, match=r'\.xml'):
        exporting.export(
            project.config(), None, project.folder / 'a.onnx', Options(to='openvino')
        )


def test_pipelines_of_many_sizes_are_refused(project):
    config = project.config()
    config.test_dataloader.dataset.pipeline[1].keep_ratio = True
    with pytest.raises(SettingError, match='keep_ratio'):
        exporting.export(config, None, project.folder / 'a.onnx', Options())


def test_images_of_other_channels_are_refused(project):
    config = project.config(**{'model.backbone.in_channels': 4})
    with pytest.raises(SettingError, match='in_channels=4'):
        exporting.export(config, None, project.folder / 'a.onnx', Options())


def test_pictures_of_a_wrapped_data_set_are_read(project):
    config = project.config()
    plain = pictures_of(config, 3)
    inner = config.test_dataloader.dataset
    for loader in (config.test_dataloader, config.val_dataloader):
        loader.dataset = dict(type='RepeatDataset', times=1, dataset=inner)
    assert np.array_equal(pictures_of(config, 3)[2], plain[2])
    assert len(plain) == 3 and plain[0].shape == (48, 64, 3)


def test_pictures_of_other_formats_are_read(project, tmp_path):
    config = project.config()
    names = dict(metainfo=dict(classes=('cat', 'dog')), data_prefix=dict(img=''))
    voc(tmp_path, a=xml(('cat', 0, (5, 6, 15, 16))))
    for kind, file in (
        ('RFDETRYoloDataset', f'{yolo(tmp_path)}#train'),
        ('RFDETRVocDataset', f'{tmp_path}/Annotations'),
    ):
        dataset = dict(type=kind, ann_file=file, **names)
        config.val_dataloader = dict(dataset=dataset)
        assert pictures_of(config, 1)[0].shape == (40, 60, 3)


@pytest.mark.long
@pytest.mark.parametrize(
    ('package', 'extra', 'options'),
    [
        ('onnxscript', 'onnx', {}),
        ('openvino', 'openvino', dict(to='openvino')),
        ('nncf', 'int8', dict(to='openvino', precision='int8')),
    ],
)
def test_a_missing_package_is_named_with_what_brings_it(package, extra, options):
    code = hide(package) + (
        'import mmdet_rfdetr.deploy.exporting as exporting\n'
        'from mmdet_rfdetr.deploy.settings import Options\n'
        f'exporting.check_packages(Options(**{options}))'
    )
    done = run_code(code)
    assert MissingPackageError.__name__ in done.stderr
    assert f"pip install 'mmdet_rfdetr[{extra}]'" in done.stderr


def test_nothing_is_sent_over_the_network(project):
    """OpenVINO reports its import, unless told that it cannot."""
    path, _ = project.exported(to='openvino', batch=None)
    code = f"""
        import socket, time

        def refuse(*arguments, **_):
            print('asked for', arguments)
            raise OSError

        socket.getaddrinfo = socket.socket.connect = refuse
        from rfdetr_runtime import open_model
        open_model({str(path)!r})
        time.sleep(0.5)
    """
    done = run_code(code)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
