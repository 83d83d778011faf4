import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from mmdet_rfdetr.training import val_loss
from tests import factory
from tests.runs import run_name

LOAD = dict(type='LoadImageFromFile')
RESIZE = dict(type='Resize', scale=(factory.SIDE, factory.SIDE), keep_ratio=False)
ANNOTATIONS = dict(type='LoadAnnotations', with_bbox=True)
PACK = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
MMDETS_ORDER = [LOAD, RESIZE, ANNOTATIONS, PACK]
OTHER_ORDER = [LOAD, ANNOTATIONS, RESIZE, PACK]


def loader(folder, pipeline, batch_size=2):
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file='annotations.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=factory.CLASSES),
            test_mode=True,
            pipeline=pipeline,
        ),
    )


def validate(folder, pipeline=MMDETS_ORDER):
    if not folder.exists():
        factory.write_coco(folder)
    runner = Runner(
        factory.build_model(),
        str(folder / 'work'),
        val_dataloader=loader(folder, pipeline),
        val_cfg={},
        val_evaluator=dict(
            type='CocoMetric', ann_file=str(folder / 'annotations.json'), metric='bbox'
        ),
        custom_hooks=[dict(type='RFDETRValLossHook')],
        default_scope='mmdet',
        experiment_name=run_name(),
        cfg=Config({}),
    )
    return runner.val(), runner


def test_terms_are_those_of_the_model_averaged_over_images(tmp_path):
    metrics, runner = validate(tmp_path / 'data')

    model = factory.build_model().eval()
    dataset = DATASETS.build(loader(tmp_path / 'data', OTHER_ORDER)['dataset'])
    terms = []
    for indices in ((0, 1), (2, 3), (4,)):
        batch = pseudo_collate([dataset[index] for index in indices])
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            _, found = model.parse_losses(model(**data, mode='loss'))
        terms += [found] * len(indices)
    assert len(terms) == len(dataset) == 5
    for name in terms[0]:
        mean = sum(term[name].item() for term in terms) / 5
        assert metrics[name] == pytest.approx(mean, rel=1e-5), name
        logged = runner.message_hub.get_scalar(f'val/{name}').current()
        assert logged == metrics[name]
    assert {'loss', 'loss_cls', 'd0.loss_iou', 'enc_loss_bbox'} <= set(metrics)
    assert 'coco/bbox_mAP' in metrics


def test_order_of_the_pipeline_does_not_matter(tmp_path):
    one, _ = validate(tmp_path / 'one', MMDETS_ORDER)
    other, _ = validate(tmp_path / 'other', OTHER_ORDER)
    assert one['loss'] == pytest.approx(other['loss'], rel=1e-5)


def test_predictions_are_the_same_as_without_the_hook(tmp_path):
    """The loss must not disturb the validation it runs beside."""
    factory.write_coco(tmp_path / 'data')
    metrics, runner = validate(tmp_path / 'data')
    runner._hooks = [
        h for h in runner._hooks if type(h).__name__ != 'RFDETRValLossHook'
    ]
    plain = runner.val_loop.run()
    assert 'loss' not in plain
    assert plain == {key: metrics[key] for key in plain}


def test_a_pipeline_without_annotations(tmp_path):
    with pytest.raises(ValueError, match='LoadAnnotations'):
        validate(tmp_path / 'data', [LOAD, RESIZE, PACK])


def test_wrapped_datasets_are_unwrapped(tmp_path):
    factory.write_coco(tmp_path / 'data')
    for order, resized in ((MMDETS_ORDER, False), (OTHER_ORDER, True)):
        dataset = loader(tmp_path / 'data', order)['dataset']
        wrapped = DATASETS.build(dict(type='RepeatDataset', times=2, dataset=dataset))
        assert val_loss.annotations_are_resized(wrapped) is resized
