"""A run lets its model know the classes before it loads a checkpoint."""

import json

import pytest
import torch
from mmengine.runner import Runner

from tests.factory import CLASSES, project_config, write_coco

REVERSED = CLASSES[::-1]
FEWER = (*CLASSES[2:], 'new')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A checkpoint of (a, b, c), and data that has a class more."""
    folder = tmp_path_factory.mktemp('classes')
    write_coco(folder / 'data', range(2))
    path = folder / 'data' / 'annotations.json'
    document = json.loads(path.read_text())
    document['categories'].append(dict(id=99, name='new'))
    path.write_text(json.dumps(document))
    model = build(folder, CLASSES).model
    weights = model.state_dict()
    for name in ('bbox_head.fc_cls.weight', 'query_selection.fc_cls.weight'):
        weights[name] = torch.rand_like(weights[name])
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=weights, meta=meta), folder / 'trained.pth')
    return folder


def build(folder, classes, wrap=None, **changes):
    cfg = project_config(folder / 'data', folder / 'work')
    cfg.default_hooks.class_names = dict(type='RFDETRClassNamesHook')
    cfg.default_hooks.ema = dict(type='RFDETREMAHook')
    cfg.model.bbox_head.num_classes = len(classes)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=classes)
        if wrap:
            loader.dataset = wrap(loader.dataset)
    cfg.merge_from_dict(changes)
    return Runner.from_cfg(cfg)


def expected(folder, classes, fresh):
    trained = torch.load(folder / 'trained.pth')['state_dict']
    rows = trained['bbox_head.fc_cls.weight']
    return torch.stack(
        [
            rows[CLASSES.index(name)] if name in CLASSES else fresh[label]
            for label, name in enumerate(classes)
        ]
    )


def check(run, folder, classes, load):
    fresh = run.model.bbox_head.fc_cls.weight.detach().clone()
    load(run)
    rows = run.model.bbox_head.fc_cls.weight.detach()
    assert torch.equal(rows, expected(folder, classes, fresh))


@pytest.mark.parametrize('classes', [REVERSED, FEWER])
@pytest.mark.parametrize('kind', ['plain', 'repeated', 'joined'])
def test_loading_alone_takes_rows_by_name(classes, kind, folder):
    wrap = dict(
        plain=None,
        repeated=lambda data: dict(type='RepeatDataset', times=2, dataset=data),
        joined=lambda data: dict(type='ConcatDataset', datasets=[data, data]),
    )[kind]
    run = build(folder, classes, wrap, load_from=str(folder / 'trained.pth'))
    check(run, folder, classes, Runner.load_or_resume)


def stop(run):
    """Begin a training, up to its first step."""
    run.train_loop.run = lambda: None
    run.train()


@pytest.mark.parametrize('from_init_cfg', [True, False])
def test_training_begins_with_rows_by_name_and_without_a_warning(
    from_init_cfg, folder, recwarn
):
    file = str(folder / 'trained.pth')
    change = (
        {'model.init_cfg': dict(type='Pretrained', checkpoint=file)}
        if from_init_cfg
        else {'load_from': file}
    )
    run = build(folder, REVERSED, **change)
    lines = []
    run.logger.warning = lines.append
    check(run, folder, REVERSED, stop)
    assert lines == []


def test_mmengines_average_begins_with_the_same_rows(folder):
    """It loads the checkpoint for itself."""
    run = build(
        folder,
        FEWER,
        load_from=str(folder / 'trained.pth'),
        **{'default_hooks.ema': dict(_delete_=True, type='EMAHook', momentum=0.1)},
    )
    check(run, folder, FEWER, stop)
    (average,) = (hook.ema_model for hook in run.hooks if hasattr(hook, 'ema_model'))
    for name, value in run.model.state_dict().items():
        assert torch.equal(average.module.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('classes', 'warning'),
    [
        (CLASSES, None),
        (REVERSED, 'has another order, from label 0 on: rows are taken by name.'),
        (FEWER, r"lacks ('a', 'b') and has ('new',) more: rows are taken by name, and"),
    ],
)
def test_testing_with_other_names_is_one_warning(classes, warning, folder):
    run = build(folder, classes, load_from=str(folder / 'trained.pth'))
    lines = []
    run.logger.warning = lines.append
    check(run, folder, classes, Runner.test)
    assert len(lines) == (warning is not None)
    assert all(warning in line for line in lines)
