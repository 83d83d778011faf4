# Blood cells with a small model from nothing: what a laptop can do in minutes.
# With an official checkpoint at hand, use rfdetr_nano_bccd.py.
_base_ = __import__('mmdet_rfdetr').config('_base_/rfdetr_tiny.py')
__import__('mmdet_rfdetr').set_image_size(_base_, 320)

data_root = 'data/bccd/'
metainfo = dict(
    classes=('RBC', 'WBC', 'Platelets'),
    palette=[(220, 20, 60), (30, 144, 255), (250, 170, 30)],
)

model = dict(
    num_queries=100,
    num_groups=3,
    # The smallest cells are a few patches wide: rather more pixels than more blocks.
    backbone=dict(out_indices=(1, 2, 3, 4)),
    bbox_head=dict(num_classes=len(metainfo['classes'])),
    test_cfg=dict(max_per_img=100),
)

train_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RFDETRResize', image_size=320),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='RFDETRResize', image_size=320),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RFDETRCocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='RFDETRCocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='RFDETRCocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox'
)
test_evaluator = val_evaluator

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = dict(warmup=3)
