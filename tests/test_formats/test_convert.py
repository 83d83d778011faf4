import argparse
import json
import runpy
import sys

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from safetensors import safe_open

from mmdet_rfdetr.checkpoints import (
    class_rows,
    from_official,
    load_checkpoint_file,
    to_official,
)
from mmdet_rfdetr.checkpoints.layout import to_mmengine_layout
from mmdet_rfdetr.errors import CheckpointError
from mmdet_rfdetr.formats import convert_checkpoint
from mmdet_rfdetr.formats.convert import (
    add_unused_blocks,
    save_safetensors,
    to_official_layout,
)
from tests.fixtures import REPOSITORY

from ..test_checkpoints.models import build_tiny, official_file
from ..test_checkpoints.official import assert_same_entries, official_state

SUFFIXES = ['.pth', '.pt', '.safetensors']


def write(path, content):
    torch.save(content, path)
    return path


def test_a_block_that_was_never_built_is_filled():
    own = from_official(official_state())
    last = 'backbone.blocks.11.'
    filled = add_unused_blocks({k: v for k, v in own.items() if last not in k})
    assert set(filled) == set(own)
    assert torch.equal(filled[last + 'norm1.weight'], torch.ones(8))
    assert torch.equal(filled[last + 'mlp.fc1.weight'], torch.zeros(32, 8))


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('arguments', [dict, argparse.Namespace])
def test_an_official_file_goes_there_and_back(tmp_path, suffix, arguments):
    args = {'num_queries': 5, 'group_detr': 3, 'class_names': ['a', 'b'], 'lr': 0.1}
    content = {**official_file(), 'args': arguments(**args), 'model_name': 'RFDETRNano'}
    source = write(tmp_path / 'official.pth', content)
    own, back = tmp_path / f'own{suffix}', tmp_path / f'back{suffix}'
    assert 'mmdet checkpoint' in convert_checkpoint(source, own)
    assert 'official checkpoint' in convert_checkpoint(own, back)
    assert_same_entries(
        load_checkpoint_file(own)['state_dict'], from_official(content['model'])
    )
    restored = load_checkpoint_file(back)
    assert_same_entries(restored['state_dict'], content['model'])
    if suffix != '.safetensors':
        raw = torch.load(back, weights_only=True)
        assert raw.keys() == {'model', 'args', 'model_name'}
        assert raw['args'] == args
        assert type(raw['model']) is dict


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_converted_file_loads_like_the_official_one(tmp_path, suffix):
    """Also into another size, for which it must still say what the file said."""
    names = [f'class {i}' for i in range(90)]
    args = {'num_queries': 5, 'group_detr': 3, 'class_names': names}
    content = official_file(num_rows=91, args=args)
    source = write(tmp_path / 'official.pth', content)
    own = tmp_path / f'own{suffix}'
    convert_checkpoint(source, own)
    models = []
    for path in (source, own):
        model = build_tiny(num_queries=4, **{'bbox_head.num_classes': 80})
        load_checkpoint(model, str(path), strict=True)
        models.append(model.state_dict())
    assert_same_entries(*models)
    assert torch.equal(
        models[0]['bbox_head.fc_cls.bias'], content['model']['class_embed.bias'][:80]
    )


def test_a_model_of_this_package_becomes_an_official_file(tmp_path):
    model = build_tiny(**{'backbone.out_indices': (2, 5, 8, 11)})
    source = write(
        tmp_path / 'epoch_3.pth',
        {'state_dict': model.state_dict(), 'meta': {'epoch': 3}, 'optimizer': {}},
    )
    target = tmp_path / 'official.pth'
    convert_checkpoint(source, target)
    official = torch.load(target, weights_only=True)
    assert official.keys() == {'model', 'args'}
    assert {name: value.shape for name, value in official['model'].items()} == {
        name: value.shape for name, value in official_state().items()
    }
    assert_same_entries(
        {k: v for k, v in official['model'].items() if '.layer.11.' not in k},
        {
            k: v
            for k, v in to_official(model.state_dict()).items()
            if '.layer.11.' not in k
        },
    )


@pytest.mark.parametrize(
    ('names', 'places', 'rows'),
    [
        (['a', 'b', 'c', 'd', 'e', 'f', 'g'], range(7), 8),
        (['a', 'b', 'c', 'd', 'e', 'f'], range(7), 7),  # the official layout already
        (None, range(7), 7),
    ],
)
def test_the_unused_class_row_is_added_where_it_lacks(tmp_path, names, places, rows):
    check_class_rows(tmp_path, names, places, rows)


def test_coco_classes_go_to_their_category_ids(tmp_path):
    check_class_rows(tmp_path, class_rows.label_names(), class_rows.CATEGORY_IDS, 91)


def check_class_rows(tmp_path, names, places, rows):
    own = from_official(official_state(num_rows=len(places)))
    meta = {'dataset_meta': {'classes': names}} if names else {}
    source = write(tmp_path / 'own.pth', {'state_dict': own, 'meta': meta})
    target = tmp_path / 'official.pth'
    convert_checkpoint(source, target)
    official = torch.load(target, weights_only=True)
    assert official['args'].get('class_names') == (names and list(names))
    places = list(places)
    unused = sorted(set(range(rows)) - set(places))
    for name, layer in (
        ('class_embed', {k: own[f'bbox_head.fc_cls.{k}'] for k in ('weight', 'bias')}),
        (
            'transformer.enc_out_class_embed.2',
            {k: own[f'query_selection.fc_cls.{k}'][2] for k in ('weight', 'bias')},
        ),
    ):
        for kind, value in layer.items():
            written = official['model'][f'{name}.{kind}']
            assert len(written) == rows
            assert torch.equal(written[places], value)
            assert torch.all(written[unused] == (-100 if kind == 'bias' else 0))
    convert_checkpoint(target, tmp_path / 'again.pth')
    model = build_tiny(**{'bbox_head.num_classes': len(places)})
    load_checkpoint(model, str(tmp_path / 'again.pth'), strict=True)
    assert_same_entries(model.state_dict(), own)


def test_a_format_can_be_kept(tmp_path):
    content = official_file()
    source = write(tmp_path / 'official.pth', content)
    target = tmp_path / 'official.safetensors'
    convert_checkpoint(source, target, to='official')
    assert_same_entries(load_checkpoint_file(target)['state_dict'], content['model'])


def test_an_existing_file_is_kept_unless_told(tmp_path):
    source = write(tmp_path / 'official.pth', official_file())
    target = tmp_path / 'own.pth'
    target.write_text('precious')
    with pytest.raises(CheckpointError, match='exists: .* --overwrite'):
        convert_checkpoint(source, target)
    assert target.read_text() == 'precious'
    convert_checkpoint(source, target, overwrite=True)
    assert load_checkpoint_file(target)['state_dict']


def test_a_target_that_the_system_refuses_is_told(tmp_path):
    source = write(tmp_path / 'official.pth', official_file())
    (tmp_path / 'folder.pth').mkdir()
    for name in ('a' * 300 + '.pth', 'folder.pth'):
        with pytest.raises(CheckpointError, match='cannot be written .*another place'):
            convert_checkpoint(source, tmp_path / name, overwrite=True)


def test_what_is_no_rfdetr_checkpoint_is_refused(tmp_path):
    for content in ({'a.weight': torch.zeros(1)}, {'model': None}, {'meta': {}}):
        source = write(tmp_path / 'other.pth', content)
        with pytest.raises(CheckpointError, match='other.pth is no RF-DETR checkpoint'):
            convert_checkpoint(source, tmp_path / 'own.pth')


def without(state, ending):
    return {k: v for k, v in state.items() if not k.endswith(ending)}


ODD = {
    'no tensor': {**official_state(), 'bbox_embed.layers.0.weight': None},
    'text': {**official_state(), '_kp_active_mask': 'text'},
    'a group is missing': without(official_state(), 'enc_output.1.weight'),
    'no kernel': without(from_official(official_state()), 'patch_embed.weight'),
}


@pytest.mark.parametrize('odd', ODD)
def test_odd_files_end_in_one_sentence(tmp_path, odd):
    source = write(tmp_path / 'odd.pth', {'state_dict': ODD[odd], 'meta': {}})
    target = tmp_path / 'target.pth'
    with pytest.raises(CheckpointError) as caught:
        convert_checkpoint(source, target)
    assert '\n' not in str(caught.value)
    assert not target.exists()


def test_a_model_with_more_than_rf_detr_has_is_refused(tmp_path):
    content = official_file()
    content['model']['text_embed.layers.0.weight'] = torch.zeros(2, 2)
    source = write(tmp_path / 'texts.pth', content)
    with pytest.raises(CheckpointError, match=r'1 entries .*text_embed.*alone'):
        convert_checkpoint(source, tmp_path / 'own.pth')


def test_safetensors_say_null_for_what_json_cannot(tmp_path, caplog):
    path = tmp_path / 'model.safetensors'
    args = {'num_queries': 5, 'device': torch.device('cpu'), 'names': {7: 'a'}}
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        save_safetensors({'model': official_state(), 'args': args}, path)
        save_safetensors({'state_dict': {'a': torch.ones(2)}}, tmp_path / 'b')
    finally:
        logger.removeHandler(caplog.handler)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert 'device' in warning
    with safe_open(path, framework='pt') as file:
        stored = json.loads(file.metadata()['rfdetr'])
    expected = {'num_queries': 5, 'device': None, 'names': {'7': 'a'}}
    assert stored == {'official': {'args': expected}}
    info = load_checkpoint_file(path)['state_dict']._metadata['']['rfdetr']
    assert info['num_queries'] == 5


def test_safetensors_of_entries_that_share_their_memory(tmp_path):
    path = tmp_path / 'model.safetensors'
    table = torch.arange(6.0).view(2, 3)
    save_safetensors({'state_dict': {'a': table.T, 'b': table[:1]}}, path)
    loaded = load_checkpoint_file(path)['state_dict']
    assert torch.equal(loaded['a'], table.T)
    assert torch.equal(loaded['b'], table[:1])


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match='model.bin'):
        convert_checkpoint(tmp_path / 'official.pth', tmp_path / 'model.bin')


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="to='onnx': choose one of official, mmdet"):
        convert_checkpoint('a.pth', 'b.pth', to='onnx')


def test_converted_files_hold_plain_values_only(tmp_path):
    content = {'model': official_state(), 'args': argparse.Namespace(a=1)}
    path = write(tmp_path / 'source.pth', content)
    for name in ('own.pth', 'official.pth'):
        convert_checkpoint(path, tmp_path / name)
        path = tmp_path / name
        torch.load(path, weights_only=True)


def test_the_official_layout_comes_back():
    extras = {
        'model_name': 'RFDETRNano',
        'model_config': {'num_queries': 5},
        'rfdetr_version': '1.11.2',
    }
    args = {'num_queries': 5, 'class_names': ['cat', 'dog'], 'lr': 1e-4}
    checkpoint = {'model': official_state(), 'args': args, **extras}
    loaded = to_mmengine_layout(checkpoint)
    back = to_official_layout(loaded['state_dict'], loaded['meta'])
    assert back.keys() == checkpoint.keys()
    assert back['args'] == args
    assert {key: back[key] for key in extras} == extras


@pytest.mark.parametrize('masks', [0, 2])
def test_arguments_are_made_for_weights_that_never_had_any(masks):
    state = official_state(num_mask_blocks=masks)
    meta = {'dataset_meta': {'classes': ('cat', 'dog')}}
    assert to_official_layout(state, meta)['args'] == {
        'num_queries': 5,
        'group_detr': 3,
        'patch_size': 4,
        'segmentation_head': bool(masks),
        'class_names': ['cat', 'dog'],
    }


TOOL = REPOSITORY / 'tools' / 'convert_checkpoint.py'


@pytest.fixture
def tool(monkeypatch):
    """Run the tool within this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [TOOL.name, *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name='__main__')

    return run


def test_the_tool_converts(tmp_path, tool, capsys):
    content = official_file()
    source = write(tmp_path / 'official.pth', content)
    target = tmp_path / 'own.pth'
    tool(source, target, '--to', 'mmdet')
    said = f'{target}: mmdet checkpoint made from {source}.\n'
    assert capsys.readouterr() == (said, '')
    assert_same_entries(
        load_checkpoint_file(target)['state_dict'], from_official(content['model'])
    )


def test_the_tool_ends_with_one_sentence(tmp_path, tool, capsys):
    with pytest.raises(SystemExit) as left:
        tool(tmp_path / 'nowhere.pth', tmp_path / 'own.pth')
    assert left.value.code == 2
    assert "nowhere.pth' does not exist" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        ({'state_dict': None}, 'is the wrong checkpoint.* NoneType'),
        ({'model': None}, 'is no RF-DETR checkpoint'),
        ({}, 'is the wrong checkpoint'),
    ],
    ids=['state_dict', 'model', 'empty'],
)
def test_the_tool_refuses_odd_files(tmp_path, tool, content, text):
    source = write(tmp_path / 'odd.pth', content)
    with pytest.raises(SystemExit, match=f'error: .*{text}') as left:
        tool(source, tmp_path / 'own.pth')
    assert '\n' not in left.value.code


def test_a_file_can_be_replaced_by_what_is_made_of_it(tmp_path):
    content = official_file()
    path = write(tmp_path / 'model.pth', content)
    convert_checkpoint(path, path, overwrite=True)
    convert_checkpoint(path, path, overwrite=True)
    assert_same_entries(load_checkpoint_file(path)['state_dict'], content['model'])


def test_the_tool_can_trust_a_file(tmp_path, tool, capsys):
    content = {**official_file(), 'optimizer': torch.nn.Linear(1, 1)}
    source = write(tmp_path / 'official.pth', content)
    target = tmp_path / 'own.pth'
    with pytest.raises(SystemExit, match=r'torch\.nn\.modules\.linear\.Linear'):
        tool(source, target)
    assert not target.exists()
    tool(source, target, '--trust-checkpoint')
    assert 'made from' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='--overwrite'):
        tool(source, target, '--trust-checkpoint')
    tool(source, target, '--trust-checkpoint', '--overwrite')
