# A small RF-DETR, trained from nothing on pictures that the package draws itself.
_base_ = __import__('mmdet_rfdetr').config('_base_/rfdetr_tiny.py')
_base_.model.backbone.update(num_windows=2)
__import__('mmdet_rfdetr').set_image_size(_base_, 128)

# Most of a step's arithmetic is the ViT's and that of the queries. A picture has up to
# six shapes and 64 patches: three blocks and 32 queries a group are enough for it.
model = dict(
    num_queries=32,
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[192, 192, 192]),
    decoder=dict(feedforward_channels=256),
    bbox_head=dict(num_classes=4),
)

dataset_type = 'RFDETRDemoDataset'
data_root = 'data/demo'
num_train = 3000
train_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='RFDETRResize', image_size=128),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
# Small batches: from nothing, the number of steps counts for more than their size.
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        num_train=num_train,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        num_train=num_train,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='RFDETRCocoMetric', ann_file=data_root + '/annotations/val.json', metric='bbox'
)
test_evaluator = val_evaluator

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = dict(warmup=0.15)
