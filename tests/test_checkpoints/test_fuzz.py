"""Files that are nearly right: nothing but an explanation may come out of them."""

import argparse
import copy
import traceback
from collections import OrderedDict

import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.checkpoints.layout import to_mmengine_layout
from mmdet_rfdetr.errors import ExplainedError

from .models import build_tiny
from .official import official_state

SIMPLE = (
    *(None, True, 0, -1, 10**400, 1.5, float('nan'), 'text', '', b'bytes'),
    *([], [[]], [1], ['a', 1], (), {}, {1: 2}, {'a': {}}, {'a'}),
    *(torch.tensor(1.0), torch.zeros(0), torch.ones(2, 3), torch.ones(2, dtype=int)),
    *(torch.tensor(True), HistoryBuffer(), argparse.Namespace(a=1)),
)


@pytest.fixture(scope='module')
def model():
    return build_tiny()


def own_file(model):
    """As a run of this package writes it, with what is only read to resume."""
    state = OrderedDict(model.state_dict())
    state._metadata = OrderedDict({'': {'version': 1}})
    return {
        'meta': {
            **{'epoch': 1, 'iter': 2, 'seed': 3, 'cfg': 'a = 1', 'experiment_name': ''},
            'dataset_meta': {'classes': tuple('abcdefg'), 'palette': [(1, 2, 3)]},
        },
        'state_dict': state,
        'ema_state_dict': {'steps': torch.tensor(3), 'module.a': torch.zeros(1)},
        'message_hub': {
            'log_scalars': OrderedDict({'train/loss': HistoryBuffer([1.0], [1])}),
            'runtime_info': OrderedDict(epoch=1, cfg='a = 1'),
            'resumed_keys': OrderedDict(epoch=True),
        },
        'optimizer': {
            'state': {0: {'step': torch.tensor(1.0), 'exp_avg': torch.zeros(1)}},
            'param_groups': [{'lr': 0.1, 'params': [0]}],
        },
        'param_schedulers': [{'last_step': 1}],
    }


def official_file(_model=None):
    names = list('abcdef')
    args = argparse.Namespace(num_queries=5, group_detr=3, class_names=names)
    config = {'num_queries': 5, 'group_detr': 3}
    return {'model': official_state(), 'args': args, 'model_config': config, 'epoch': 1}


def lightning_file(_model=None):
    state = {f'model.{name}': value for name, value in official_state().items()}
    return {'state_dict': state, 'hyper_parameters': {'num_queries': 5}, 'epoch': 1}


LONG = pytest.param(lightning_file, marks=pytest.mark.long)
FILES = (own_file, official_file, LONG)
# Entries of a state dict that are looked at one by one.
SPECIAL = ('class_embed.weight', 'class_embed.bias', 'fc_cls.weight', 'fc_cls.bias')
SPECIAL += ('refpoint_embed.weight', 'reference_embedding', 'query_feat.weight')
SPECIAL += ('query_embedding', 'pos_embed', 'position_embeddings')
SPECIAL += ('projection.weight', 'cls_token', 'mask_token', 'enc_output.0.weight')


def places(content, path=()):
    """Paths of everything in a file; of many tensors, a few."""
    inner = vars(content) if isinstance(content, argparse.Namespace) else content
    if isinstance(inner, dict):
        keys = list(inner)
        if len(keys) > 20:
            keys = [keys[0], *(key for key in keys if key.endswith(SPECIAL))]
        for key in keys:
            yield (*path, key)
            yield from places(inner[key], (*path, key))
    elif isinstance(inner, list | tuple) and inner:
        yield (*path, 0)
        yield from places(inner[0], (*path, 0))


def replace(content, path, value):
    """A copy of the containers with another value in one place."""
    if not path:
        return value
    key, *rest = path
    if isinstance(content, argparse.Namespace):
        return argparse.Namespace(**replace(vars(content), path, value))
    if isinstance(content, list | tuple):
        return type(content)([replace(content[0], rest, value), *content[1:]])
    copied = copy.copy(content)
    copied[key] = replace(content[key], rest, value)
    return copied


def fault(action, *args, **options):
    """Do something; return what is wrong about how it failed, if it did."""
    try:
        action(*args, **options)
    except ExplainedError as error:
        text = str(error)
        return f'no sentence: {text[:300]}' if len(text) > 1000 or '\n' in text else ''
    except Exception:
        return traceback.format_exc(limit=-2)
    return ''


@pytest.mark.parametrize('write', FILES)
def test_every_entry_of_every_simple_type(model, write):
    content = write(model)
    failed = []

    def attempt(content, of_weights):
        loaded = to_mmengine_layout(content)
        if of_weights and isinstance(loaded.get('state_dict'), dict):
            model.load_state_dict(loaded['state_dict'], strict=False)

    for index, place in enumerate(places(content)):
        # Fewer for entries of a state dict, which are alike.
        step = 12 if len(place) > 1 and place[0] in ('state_dict', 'model') else 4
        for value in SIMPLE[index % step :: step]:
            changed = replace(content, place, value)
            if wrong := fault(attempt, changed, isinstance(value, torch.Tensor)):
                failed.append(f'{place} = {value!r:.50}: {wrong}')
    assert not failed, f'{len(failed)}\n' + '\n'.join(failed[::4])


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_files_that_end_anywhere(kind, tmp_path):
    path = tmp_path / ('a.safetensors' if kind == 'safetensors' else 'a.pth')
    content = {'a': torch.zeros(3), 'b': torch.ones(2)}
    if kind == 'safetensors':
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    raw = path.read_bytes()
    for keep in range(0, len(raw), 13):
        path.write_bytes(raw[:keep])
        with pytest.raises(ExplainedError):
            load_checkpoint_file(path)
