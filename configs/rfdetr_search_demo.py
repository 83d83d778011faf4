# A family of very small models, trained from nothing in one run on drawn pictures.
_base_ = __import__('mmdet_rfdetr').config('_base_/rfdetr_tiny.py')
# The home of all sub-nets: what the checkpoint is when it is loaded as it is.
_base_.model.backbone.update(patch_size=8, num_windows=1)
__import__('mmdet_rfdetr').set_image_size(_base_, 64)

model = dict(
    # 14 sizes with patches and windows are drawn in training; layers and queries are
    # cut afterwards.
    search_space=dict(
        image_sizes=[48, 56, 64],
        patch_sizes=[6, 8, 12],
        num_windows=[1, 2],
        num_layers=[0, 1, 2],
        num_queries=[8, 16],
    ),
    num_queries=16,
    num_groups=2,
    data_preprocessor=dict(
        pad_size_divisor=1, batch_augments=[dict(type='RFDETRBatchSubnetSize')]
    ),
    backbone=dict(embed_dims=64, num_heads=2, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 64, 64], out_channels=48, num_blocks=1),
    decoder=dict(
        num_layers=2, self_attn_heads=4, cross_attn_heads=4, feedforward_channels=128
    ),
    bbox_head=dict(num_classes=4),
    test_cfg=dict(max_per_img=16),
)

dataset_type = 'RFDETRDemoDataset'
data_root = 'data/search_demo'
pictures = dict(
    type=dataset_type,
    data_root=data_root,
    picture_size=64,
    num_train=4000,
    num_val=400,
)
train_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RFDETRResize', image_size=64),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='RFDETRResize', image_size=64),
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
        **pictures,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **pictures,
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

# Three times as long as one of the models alone needs: sub-nets that are trained as
# briefly are worse than it, and in another order.
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
val_cfg = dict(
    type='RFDETRSubnetValLoop', val_subnets=('largest', 'middle', 'smallest')
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(
    subnet=dict(type='RFDETRSubnetHook', draw='uniform'),
    checkpoint=dict(save_best='search/bbox_mAP'),
)
