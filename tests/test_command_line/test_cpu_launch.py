"""Several processes without an accelerator."""

import json
import os

import pytest
import torch
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel

from mmdet_rfdetr import compat
from mmdet_rfdetr.command_line import cpu_launch
from mmdet_rfdetr.models.query_selection import GroupLinear
from tests.interpreter import fork_together, loopback, run_code
from tests.test_compat import ONE_RANK
from tests.test_precision.conftest import pictures  # noqa: F401
from tests.test_precision.project import project_config
from tests.test_precision.recorder import expected

from .precision_of_processes import train_and_record

INIT = "import mmengine.dist; mmengine.dist.init_dist('pytorch')"


@pytest.mark.long
def test_unfixed_data_parallel_asks_for_a_gpu():
    unfixed = run_code(INIT, **ONE_RANK)
    assert unfixed.returncode != 0
    assert 'set_device' in unfixed.stderr


def average():
    init_dist('pytorch', backend='nccl')
    rank = torch.distributed.get_rank()
    compat.apply_to_model()
    model = GroupLinear(1, 1, 1)
    parallel = MMDistributedDataParallel(
        module=model, device_ids=[rank], broadcast_buffers=False
    )
    parallel(torch.tensor([[[1.0 + 2 * rank]]])).sum().backward()
    assert model.weight.grad.item() == 2.0, model.weight.grad
    # It lies where it was summed, and is not copied.
    assert model.weight.grad._base is not None


def test_two_processes_average_their_gradients(tmp_path):
    assert fork_together(average, folder=tmp_path) == ([0, 0], ['', ''])


@pytest.mark.skipif(loopback() is None, reason='no loopback interface')
def test_processes_of_one_machine_need_no_name_of_it(monkeypatch):
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'eth7')  # restored in the end
    monkeypatch.delenv('GLOO_SOCKET_IFNAME')
    monkeypatch.setenv('MASTER_ADDR', '10.0.0.1')
    cpu_launch._stay_on_this_machine()
    assert 'GLOO_SOCKET_IFNAME' not in os.environ
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    cpu_launch._stay_on_this_machine()
    assert os.environ['GLOO_SOCKET_IFNAME'] == loopback()
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'eth7')
    cpu_launch._stay_on_this_machine()
    assert os.environ['GLOO_SOCKET_IFNAME'] == 'eth7'


def test_two_processes_train_in_one_precision(pictures, tmp_path):  # noqa: F811
    config = project_config(pictures, tmp_path)
    config.launcher = 'pytorch'
    config.dump(tmp_path / 'config.py')
    codes, said = fork_together(train_and_record, tmp_path, folder=tmp_path)
    assert codes == [0, 0], said
    for rank in (0, 1):
        seen = json.loads((tmp_path / f'rank{rank}.json').read_text())
        # Of 4 images a process gets 2: 2 steps of training, 1 of validation.
        assert len(seen) == 2 * (2 + 1)
        assert set(seen) == {str(expected(torch.bfloat16)[0])}
