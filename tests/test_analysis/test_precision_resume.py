import pytest
import torch

from mmdet_rfdetr.checkpoints.loading import load_checkpoint_file

from .precision_project import project_config, run

POLICIES = {
    'float32': ('cpu', 'float32'),
    'cpu bfloat16': ('cpu', 'bfloat16'),
    'cpu float16': ('cpu', 'float16'),
}


def load(path):
    return load_checkpoint_file(str(path), 'cpu')


@pytest.fixture(scope='module')
def checkpoints(pictures, tmp_path_factory):
    """A checkpoint after two steps under each policy."""
    files = {}
    for name, policy in POLICIES.items():
        folder = tmp_path_factory.mktemp('trained')
        run(project_config(pictures, folder, *policy), 'train')
        files[name] = folder / 'iter_2.pth'
    return files


@pytest.mark.parametrize('name', POLICIES)
def test_the_policy_stands_in_the_checkpoint(name, checkpoints):
    device_type, dtype = POLICIES[name]
    checkpoint = load(checkpoints[name])
    assert checkpoint['meta']['precision'] == dict(
        device_type=device_type, dtype=dtype, effective=name
    )
    assert ('loss_scaler' in checkpoint['optimizer']) == (dtype == 'float16')
    weights = checkpoint['state_dict'].values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float32}


def test_what_a_policy_came_to_stands_there_too(pictures, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('this machine has CUDA')
    run(project_config(pictures, tmp_path, 'cuda', 'bfloat16'), 'train')
    assert load(tmp_path / 'iter_2.pth')['meta']['precision'] == dict(
        device_type='cuda', dtype='bfloat16', effective='float32'
    )


@pytest.mark.long
def test_the_policy_stands_in_the_checkpoint_of_a_shipped_config(toy_checkpoint):
    assert load(toy_checkpoint)['meta']['precision'] == dict(
        device_type=None, dtype='float32', effective='float32'
    )


@pytest.mark.parametrize('after', POLICIES)
@pytest.mark.parametrize('before', POLICIES)
def test_resume(before, after, checkpoints, pictures, tmp_path, log):
    config = project_config(pictures, tmp_path, *POLICIES[after])
    config.train_cfg.max_iters = 4
    config.load_from, config.resume = str(checkpoints[before]), True
    runner = run(config, 'train')
    assert runner.iter == 4
    lines = [line for line in log if 'resumes a checkpoint' in line]
    if before == after:
        assert not lines
    else:
        (line,) = lines
        assert f'trained in {before},' in line
        assert f'goes on in {after}' in line
    saved = load(tmp_path / 'iter_4.pth')
    assert saved['meta']['precision']['effective'] == after
    if after == 'cpu float16':
        # Growth counts the steps of both runs where the scale was resumed.
        steps = 4 if before == after else 2
        assert saved['optimizer']['loss_scaler']['_growth_tracker'] == steps


def test_weights_alone_are_taken_over_without_a_line(
    checkpoints, pictures, tmp_path, log
):
    config = project_config(pictures, tmp_path, 'cpu', 'float32')
    config.load_from = str(checkpoints['cpu bfloat16'])
    run(config, 'train')
    assert not any('goes on in' in line for line in log)
