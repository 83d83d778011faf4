"""Files that are nearly right: converting ends in an explanation."""

import pytest
import torch

from mmdet_rfdetr.formats import convert_checkpoint

from ..test_checkpoints.models import build_tiny
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
