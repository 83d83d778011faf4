import os

import pytest

from tests.test_deploy.project import Project

MASKS = {
    'mask_head': dict(type='RFDETRMaskHead', downsample_ratio=4),
    'bbox_head.loss_mask': dict(
        type='RFDETRPointMaskLoss', mask_weight=5.0, dice_weight=5.0
    ),
}


@pytest.fixture(scope='session')
def project(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    # Beside the folders of the other processes, if there are any.
    beside = folder.parent if 'PYTEST_XDIST_WORKER' in os.environ else folder
    shared = beside / 'graphs'
    shared.mkdir(exist_ok=True)
    return Project(tmp_path_factory.mktemp('project'), shared)


@pytest.fixture(scope='module')
def masks_project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('masks')
    return Project(folder, folder, **MASKS)
