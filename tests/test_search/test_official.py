"""Exported sub-nets, converted to the official format, in the official package."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_rfdetr.formats.convert import convert_checkpoint
from mmdet_rfdetr.search import Subnet
from mmdet_rfdetr.search.export import export_subnet
from tests import golden, parity
from tests.interpreter import run
from tests.live import PYTHON, needs_official

CASE = golden.CASES['windows']
HOME = CASE['model']
SUBNETS = {
    'another patch and fewer layers': 's60-p6-w2-d1-q7',
    'other windows and fewer queries': 's72-p8-w3-d2-q5',
    'a larger grid': 's96-p4-w4-d2-q9',
    'the encoder alone': 's48-p12-w1-d0-q7',
}
# The official package builds a model of these sizes, loads the file and runs it.
ASK = """
import json
import sys

import numpy as np
import torch

from tests.official import batch, construct

case, path, answer = json.loads(sys.argv[1]), *sys.argv[2:]
model, _, _ = construct(case)
weights = torch.load(path, weights_only=True)['model']
missing, unexpected = model.load_state_dict(weights, strict=False)
assert not missing, missing
model.eval()
with torch.no_grad():
    outputs = model(batch(case))
np.savez(answer, **{key: outputs[key].numpy() for key in ('pred_logits', 'pred_boxes')})
print(sorted(unexpected))
"""


@needs_official
@pytest.mark.parametrize('name', SUBNETS.values(), ids=SUBNETS)
def test_exports_give_the_official_outputs(name, tmp_path):
    subnet = Subnet.parse(name)
    model = parity.case_config(CASE)
    model['search_space'] = dict(
        image_sizes=[64],
        patch_sizes=[HOME['patch_size']],
        num_windows=[HOME['num_windows']],
        num_layers=[HOME['dec_layers']],
        num_queries=[HOME['num_queries']],
    )
    weights = parity.rule_model(model, CASE['seed']).state_dict()
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'super.pth')
    cfg = Config(dict(model=model, image_size=64))
    exported, path = export_subnet(cfg, tmp_path / 'super.pth', subnet, tmp_path)
    convert_checkpoint(str(path), str(tmp_path / 'official.pth'), to='official')

    side = subnet.image_size
    sizes = dict(
        HOME,
        patch_size=subnet.patch_size,
        num_windows=subnet.num_windows,
        dec_layers=subnet.num_layers,
        num_queries=subnet.num_queries,
        positional_encoding_size=side // subnet.patch_size,
        resolution=side,
    )
    case = dict(CASE, model=sizes, sizes=[(side, side)], batch_size=(side, side))
    answer = tmp_path / 'answer.npz'
    command = [PYTHON, '-W', 'ignore', '-c', ASK, json.dumps(case)]
    done = run([*command, tmp_path / 'official.pth', answer])
    assert done.returncode == 0, done.stderr

    images, samples = parity.rule_batch(**{k: case[k] for k in ('sizes', 'seed')})
    alone = MODELS.build(Config.fromfile(exported).model).eval()
    alone.load_state_dict(torch.load(path, weights_only=True)['state_dict'])
    with torch.no_grad():
        ours = alone(images, samples, mode='tensor')
    with np.load(answer) as theirs:
        for key in ('pred_logits', 'pred_boxes'):
            np.testing.assert_allclose(ours[key], theirs[key], rtol=2e-5, atol=2e-5)
