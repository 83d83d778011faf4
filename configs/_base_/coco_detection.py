# COCO, in the official square mode: every image is resized to the largest
# multi-scale size, and each training batch from there to the size of its step.
dataset_type = 'RFDETRCocoDataset'
data_root = 'data/coco/'
backend_args = None

train_pipeline = [
    dict(type='RFDETRLoadImage', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RFDETRResize', image_size=576, size_divisor=32, offsets=(5,))],
            [
                dict(type='RFDETRResize', sizes=(400, 500, 600), keep_ratio=True),
                dict(type='RFDETRRandomSquareCrop', min_side=384, max_side=600),
                dict(
                    type='RFDETRResize', image_size=576, size_divisor=32, offsets=(5,)
                ),
            ],
        ],
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='RFDETRLoadImage', backend_args=backend_args),
    dict(type='RFDETRResize', image_size=576),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='RFDETRCocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric='bbox',
    format_only=False,
    backend_args=backend_args,
)
test_evaluator = val_evaluator
