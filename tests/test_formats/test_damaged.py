"""Files that are nearly right: reading and converting end in an explanation."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.formats import convert_checkpoint

from ..test_checkpoints.models import build_tiny
from ..test_checkpoints.official import official_state
from ..test_checkpoints.test_fuzz import FILES, SIMPLE, SPECIAL, fault, places, replace


@pytest.mark.parametrize('write', FILES[:2])
def test_converting_of_every_simple_type(write, tmp_path):
    """The entries that converting reads."""
    path, target = tmp_path / 'weights.pth', tmp_path / 'converted.safetensors'
    content = write(build_tiny())
    read = [
        *(('meta',), ('meta', 'dataset_meta', 'classes')),
        *(('args',), ('args', 'class_names', 0), ('args', 'num_queries')),
    ]
    read += [place for place in places(content) if str(place[-1]).endswith(SPECIAL)]
    failed = []
    for index, place in enumerate(place for place in read if place in places(content)):
        for value in SIMPLE[index % 8 :: 8]:
            torch.save(replace(content, place, value), path)
            if wrong := fault(convert_checkpoint, path, target, overwrite=True):
                failed.append(f'{place} = {value!r:.50}: {wrong}')
    assert not failed, f'{len(failed)}\n' + '\n'.join(failed[::4])


JSON = [value for value in SIMPLE if isinstance(value, str | int | float | list | dict)]


def write_header(path, header, body=b'\0' * 24):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(raw)) + raw + body)


def test_damaged_headers_of_safetensors(tmp_path):
    path = tmp_path / 'weights.safetensors'
    entry = {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]}
    header = {'__metadata__': {'rfdetr': '{"meta": {"epoch": 1}}'}, 'a.weight': entry}
    write_header(path, header)
    assert load_checkpoint_file(path)['meta'] == {'epoch': 1}
    odd = [-1, 2**63, 2**64, [0, 2**63], [-1, 24], [24, 0], [2**62, 4], [0.5], 'F64']
    headers = [
        replace(header, place, value)
        for place in [(), *places(header)]
        for value in [*JSON, None, *odd]
    ]
    headers += [b'', b'{', b'[' * 10**5, b'\xff', b'{"a":' * 10**4, b' ' * 1000]
    wrong = []
    for each in headers:
        write_header(path, each)
        wrong.append(fault(load_checkpoint_file, path))
    for length in (0, 1, 10**8, 2**40, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack('<Q', length) + json.dumps(header).encode())
        wrong.append(fault(load_checkpoint_file, path))
    assert not any(wrong), '\n'.join(filter(None, wrong))


@pytest.mark.parametrize('official', [True, False])
def test_metadata_of_safetensors_of_every_simple_type(official, tmp_path):
    path = tmp_path / 'weights.safetensors'
    if official:
        state = {name: torch.zeros(2) for name in official_state()}
        stored = {'official': {'args': {'num_queries': 5, 'class_names': ['a']}}}
    else:
        state = {name: torch.zeros(2) for name in build_tiny().state_dict()}
        stored = {'meta': {'epoch': 1, 'dataset_meta': {'classes': ['a']}}}
    failed = []
    for index, place in enumerate([(), *places(stored)]):
        for value in [None, *JSON[index % 6 :: 6]]:
            text = json.dumps(replace(stored, place, value))
            save_file(state, path, {'rfdetr': text})
            if wrong := fault(load_checkpoint_file, path):
                failed.append(f'{text}: {wrong}')
    assert not failed, '\n'.join(failed)
