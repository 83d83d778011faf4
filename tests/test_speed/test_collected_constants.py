import torch

from mmdet_rfdetr.ops.constants import constant
from mmdet_rfdetr.speed.cuda_graphs import collect_constants

CPU = torch.device('cpu')


@constant
def made(count, device):
    return torch.arange(count, device=device)


def test_what_a_recording_reads_is_collected():
    made(3, CPU)
    with collect_constants() as used:
        made(3, CPU)
        with collect_constants() as inner:
            made(5, CPU)
        assert len(inner) == 1 and inner[0] is made(5, CPU)
    made(6, CPU)
    assert [len(x) for x in used] == [3, 5, 5]
