# Boxes of drawn stick figures, from nothing: where configs/rfdetr-pose_demo.py begins.
_base_ = __import__('mmdet_rfdetr').config('rfdetr_demo.py')

# A picture has one or two figures.
model = dict(
    num_queries=8,
    bbox_head=dict(num_classes=1),
    test_cfg=dict(max_per_img=8),
)
data_root = 'data/demo_figures'
metainfo = dict(classes=('figure',), palette=[(220, 20, 60)])
figures = dict(
    type='RFDETRDemoFigures', data_root=data_root, metainfo=metainfo, num_train=2400
)
_base_.train_dataloader.dataset.update(figures)
_base_.val_dataloader.dataset.update(figures)
test_dataloader = _base_.val_dataloader
val_evaluator = dict(ann_file=data_root + '/annotations/val.json')
test_evaluator = dict(ann_file=data_root + '/annotations/val.json')

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
