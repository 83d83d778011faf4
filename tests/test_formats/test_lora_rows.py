"""Class rows are taken by name whether or not there are adapters as well."""

import pytest
import torch

from ..test_checkpoints.models import build_tiny
from ..test_checkpoints.test_class_rows import (
    ABC,
    CLASS_LAYERS,
    check_rows,
    file,  # noqa: F401  a fixture
)
from .test_lora import needs_peft

LORA = {'backbone.lora': dict(r=2, alpha=4)}


@needs_peft
def test_files_without_adapters_take_rows_by_name(file):  # noqa: F811
    check_rows(file, **LORA)


@needs_peft
@pytest.mark.parametrize('changes', [LORA, {}])
def test_files_with_adapters_take_rows_by_name(changes, tmp_path):
    trained = build_tiny(**{'bbox_head.num_classes': 3}, **LORA).state_dict()
    for name in CLASS_LAYERS:  # equal rows would prove nothing
        trained[name] = torch.rand_like(trained[name])
    meta = dict(dataset_meta=dict(classes=ABC))
    path = str(tmp_path / 'lora.pth')
    torch.save(dict(state_dict=trained, meta=meta), path)
    check_rows(path, **changes)
