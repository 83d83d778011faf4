"""A dump that is nearly right ends in a sentence, or is computed."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmdet_rfdetr.errors import CheckpointError, ExplainedError
from mmdet_rfdetr.reliability.dump import get_rates, replay, sample_to_plain
from mmdet_rfdetr.reliability.random_state import capture_random_state
from tests.test_checkpoints.test_fuzz import places, replace


@pytest.fixture
def dumped(monkeypatch):
    """What a dump holds, and a config that names its model."""
    monkeypatch.setitem(MODELS.module_dict, 'ToyOfDumps', ToyOfDumps)
    cfg = Config(dict(model=dict(type='ToyOfDumps')))
    model = MODELS.build(cfg.model)
    sample = DetDataSample(metainfo=dict(img_id=3, img_shape=(2, 2)))
    sample.gt_instances = InstanceData(
        bboxes=torch.rand(1, 4), labels=torch.tensor([2])
    )
    batch = dict(
        iteration=3,
        random_state=capture_random_state(),
        inputs=[torch.zeros(3, 2, 2)],
        samples=[sample_to_plain(sample)],
    )
    meta = dict(rates=get_rates(model), accumulative_counts=1)
    return cfg, dict(state_dict=model.state_dict(), batches=[batch], meta=meta)


class ToyOfDumps(BaseModel):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples, mode):
        return dict(loss=self.drop(self.weight).sum())


def test_a_damaged_dump_is_told(dumped, tmp_path):
    cfg, content = dumped
    path = tmp_path / 'dump.pth'
    torch.save(content, path)
    assert len(list(replay(cfg, path))) == 2
    values = (None, -1, 'text', [1], {}, torch.ones(2, 3), {'weight': 1.5})
    for index, place in enumerate(places(content)):
        for value in values[index % 2 :: 2]:
            torch.save(replace(content, place, value), path)
            try:
                list(replay(cfg, path))
            except ExplainedError:
                continue
            except Exception as error:
                raise AssertionError(f'{place} = {value!r}') from error


def test_a_dump_changes_nothing_but_rates(dumped, tmp_path):
    cfg, content = dumped
    content = replace(content, ('meta', 'rates'), {'forward': 1.0})
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='forward is no rate of the model'):
        list(replay(cfg, tmp_path / 'a.pth'))
