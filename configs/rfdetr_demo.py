# A small RF-DETR, trained from nothing on pictures that the package draws itself.
# Minutes on two CPU cores: the same classes as the variants, smaller numbers.
_base_ = [
    './_base_/rfdetr_model.py',
    './_base_/schedule.py',
    './_base_/runtime.py',
]
_base_.model.backbone.update(patch_size=16, num_windows=1, pos_embed_size=8)
__import__('mmdet_rfdetr').set_image_size(_base_, 128)

model = dict(
    num_queries=64,
    num_groups=4,
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(embed_dims=192, num_heads=3, out_indices=(2, 4, 5, 6)),
    neck=dict(in_channels=[192, 192, 192, 192], out_channels=128),
    decoder=dict(
        num_layers=2,
        self_attn_heads=4,
        cross_attn_heads=8,
        feedforward_channels=512,
    ),
    bbox_head=dict(num_classes=4),
    test_cfg=dict(max_per_img=64),
)

dataset_type = 'RFDETRDemoDataset'
data_root = 'data/demo'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RFDETRResize', image_size=128),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
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
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + '/annotations/val.json', metric='bbox'
)
test_evaluator = val_evaluator

# A short run from nothing: one higher rate for all parameters, and a quick EMA.
max_epochs = 11
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(
    _delete_=True,
    type='RFDETRAmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=5e-4, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    ),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = dict(
    _delete_=True,
    type='RFDETRLR',
    preset='cosine',
    warmup=0.25,
    convert_to_iter_based=True,
)
default_hooks = dict(ema=dict(decay=0.99))
custom_hooks = [dict(type='RFDETRAllocatorHook')]
randomness = dict(seed=0)
