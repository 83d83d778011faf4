"""The check of whole data sets, and its tool."""

import runpy
import sys

import pytest
from mmengine.config import Config

from mmdet_rfdetr.errors import BadDataError
from mmdet_rfdetr.faults.check import check_config, decode_all
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import ANIMALS, PIPELINE, build, document, write
from tests.fixtures import REPOSITORY

TOOL = REPOSITORY / 'tools' / 'check_dataset.py'


def config(folder, **changes):
    dataset = dict(
        type='RFDETRCocoDataset',
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=ANIMALS),
        pipeline=PIPELINE,
        bad_data='error',
    )
    dataset.update(changes)
    repeated = dict(type='RepeatDataset', dataset=dataset, times=2)
    validation = dict(dataset, test_mode=True)
    return Config(
        dict(
            train_dataloader=dict(dataset=repeated),
            val_dataloader=dict(dataset=validation),
            test_dataloader=dict(dataset=validation),
        )
    )


def damage(folder):
    """A cut file, which only decoding finds, and a box that the data set finds."""
    data = document()
    data['annotations'][0]['bbox'] = [1, 1, 0, 0]
    write(folder, data)
    path = folder / 'b.jpg'
    path.write_bytes(path.read_bytes()[:-500])


def test_everything_is_found_under_any_policy(tmp_path):
    damage(tmp_path)
    found = dict(check_config(config(tmp_path)))
    assert list(found) == ['train', 'val, test']
    for findings in found.values():
        assert dict(findings.counts) == {
            Finding.BOX_EMPTY: 1,
            Finding.FILE_UNREADABLE: 1,
        }
        assert findings.examples[Finding.FILE_UNREADABLE] == ['b.jpg']


def test_a_data_set_of_another_type_is_named(tmp_path):
    cfg = config(write(tmp_path), type='CocoDataset')
    for loader in cfg.values():
        dataset = loader.dataset.get('dataset', loader.dataset)
        del dataset['bad_data']
    with pytest.raises(BadDataError, match='train data set is a RepeatDataset'):
        list(check_config(cfg))


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Run the tool on a config; its exit status and, if it has one, its error."""

    def run_tool(cfg):
        path = tmp_path / 'config.py'
        cfg.dump(path)
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(path)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        return end.value.code

    return run_tool


def test_the_tool_prints_tables_and_fails_on_faults(tmp_path, tool, capsys):
    damage(tmp_path / 'data')
    assert tool(config(tmp_path / 'data')) == 1
    printed = capsys.readouterr().out
    assert '[val, test] Found in' in printed
    assert printed.count('1      box of zero area') == 2
    assert printed.count('1      image file that cannot be decoded') == 2


def test_the_tool_looks_at_files_that_training_does_not(tmp_path, tool, capsys):
    cfg = config(write(tmp_path / 'data'), check_images=False)
    (tmp_path / 'data' / 'b.jpg').unlink()
    assert tool(cfg) == 1
    assert capsys.readouterr().out.count('1      image file that does not exist') == 2


def test_a_file_that_goes_missing_is_found(tmp_path):
    dataset = build(write(tmp_path))
    (tmp_path / 'b.jpg').unlink()
    decode_all(dataset)
    assert dataset.findings.examples[Finding.FILE_MISSING] == ['b.jpg']


def test_the_tool_is_content_with_sound_data(tmp_path, tool, capsys):
    assert tool(config(write(tmp_path / 'data'))) == 0
    assert '[train] nothing to remark' in capsys.readouterr().out


def test_the_tool_says_what_cannot_be_read(tmp_path, tool):
    cfg = config(write(tmp_path / 'data', '{"images": ['))
    assert 'annotations.json is cut off' in tool(cfg)


def with_horses(folder):
    cfg = config(write(folder))
    for loader in cfg.values():
        dataset = loader.dataset.get('dataset', loader.dataset)
        dataset.metainfo = dict(classes=('cat', 'horse', 'dog'))
    return cfg


def test_the_tool_names_classes_that_a_file_lacks(tmp_path, tool, capsys):
    assert tool(with_horses(tmp_path / 'data')) == 0
    printed = capsys.readouterr().out
    assert printed.count('class that the file lacks  a class without objects') == 2


def test_the_tool_compares_the_classes_of_data_sets(tmp_path, tool):
    cfg = with_horses(tmp_path / 'data')
    cfg.val_dataloader.dataset.metainfo = dict(classes=('cat', 'dog'))
    assert "train_dataloader and val_dataloader differ: ('cat', 'horse'" in tool(cfg)
