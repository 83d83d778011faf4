import torch

from mmdet_rfdetr.losses.reduction import sum_stages

from .stages import BATCH, CLASSES, STAGE_SIZES, make_matches


def test_rows_are_summed_into_their_stage():
    values = torch.rand(BATCH, sum(STAGE_SIZES), CLASSES)
    sums = sum_stages(values, make_matches())
    expected = [values[:, 0:6].sum(), values[:, 6:12].sum(), values[:, 12:16].sum()]
    torch.testing.assert_close(sums, torch.stack(expected))
