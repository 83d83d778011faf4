"""What is done with super-nets and exports: refused, deployed, converted, recorded."""

import re
import shlex
import sys

import pytest
import torch
from mmengine.config import Config

from mmdet_rfdetr.errors import CheckpointError, SettingError
from mmdet_rfdetr.search import SearchSpace, Subnet
from mmdet_rfdetr.search.export import export_subnet
from mmdet_rfdetr.search.supernet import set_subnet
from tests import factory
from tests.interpreter import REPOSITORY, run
from tests.test_search.test_export import config, outputs
from tests.test_search.test_supernet import SPACE


@pytest.fixture(scope='module')
def supernet_files(tmp_path_factory):
    """Config and checkpoint of a super-net, as a run leaves them."""
    folder = tmp_path_factory.mktemp('super')
    cfg = config()
    cfg.custom_imports = dict(imports=['mmdet_rfdetr'], allow_failed_imports=False)
    cfg.default_scope = 'mmdet'
    cfg.dump(folder / 'super.py')
    weights = factory.build_model(search_space=SPACE).state_dict()
    meta = dict(
        dataset_meta=dict(classes=factory.CLASSES),
        rfdetr=dict(search_space=SearchSpace(**SPACE).as_dict()),
    )
    torch.save(dict(state_dict=weights, meta=meta), folder / 'super.pth')
    return folder / 'super.py', folder / 'super.pth'


def load(model, path):
    from mmengine.runner import load_checkpoint

    load_checkpoint(model, str(path), map_location='cpu')


@pytest.mark.long
def test_another_config_is_refused_with_a_command_that_helps(supernet_files, tmp_path):
    cfg, path = supernet_files
    other = {
        'backbone.patch_size': 3,
        'backbone.pos_embed_size': 8,
        'decoder.num_layers': 1,
    }
    with pytest.raises(CheckpointError, match='it is a super-net') as error:
        load(factory.build_model(**other), path)
    (command,) = re.findall(
        r'python (tools/export_subnet.py .*? OUT)', str(error.value)
    )
    values = dict(CONFIG=cfg, CHECKPOINT=path, OUT=tmp_path)
    values['s480-p12-w2-d3-q200'] = name = 's24-p3-w2-d1-q5'
    words = [str(values.get(word, word)) for word in shlex.split(command)]
    done = run([sys.executable, *words], cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    exported = Config.fromfile(tmp_path / f'{name}.py').model
    model = factory.MODELS.build(exported)
    load(model, tmp_path / f'{name}.pth')
    assert (model.backbone.patch_size, len(model.decoder.layers)) == (3, 1)


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('s24-p3-w2-d3-q5', 'at most d2 and q6'),
        ('s24-p3-w2-d2-q7', 'at most d2 and q6'),
    ],
)
def test_more_than_there_is_cannot_be_exported(name, says, supernet_files, tmp_path):
    cfg, path = supernet_files
    with pytest.raises(SettingError, match=says):
        export_subnet(Config.fromfile(cfg), path, Subnet.parse(name), tmp_path)


def test_the_home_config_loads_it_as_it_is(supernet_files):
    plain = factory.build_model()
    load(plain, supernet_files[1])
    weights = factory.build_model(search_space=SPACE).state_dict()
    assert all(torch.equal(weights[n], v) for n, v in plain.state_dict().items())


@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
@pytest.mark.parametrize('name', ['s24-p3-w2-d1-q5', 's40-p5-w1-d0-q6'])
def test_a_sub_net_is_deployed_as_its_export(dtype, name, supernet_files, tmp_path):
    subnet = Subnet.parse(name)
    precision = dtype and dict(device_type='cpu', dtype=dtype)
    model = factory.build_model(search_space=SPACE, precision=precision).eval()
    cfg = Config.fromfile(supernet_files[0])
    cfg.model.precision = precision
    exported, path = export_subnet(cfg, supernet_files[1], subnet, tmp_path)
    alone = factory.MODELS.build(Config.fromfile(exported).model).eval()
    load(alone, path)
    set_subnet(model, subnet)
    both = [x.switch_to_deploy() for x in (model, alone)]
    ours, theirs = (outputs(x, subnet.image_size) for x in both)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_recordings_are_kept_by_sub_net():
    """The same size of input can be that of several."""
    model = factory.build_model(search_space=SPACE)
    keys = set()
    names = ('s24-p3-w2-d2-q6', 's24-p3-w1-d2-q6', 's24-p4-w2-d2-q6', 's24-p3-w2-d1-q6')
    for name in (*names, 's24-p3-w2-d2-q3'):
        set_subnet(model, Subnet.parse(name))
        keys.add(model.step_settings())
    assert len(keys) == 5
