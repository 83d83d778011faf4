# Scale jitter, flip and resize in one step, from no more of the file than they need.
_base_ = ['./coco_detection.py']

train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RFDETRLoadJittered',
        image_size=576,
        size_divisor=32,
        offsets=(5,),
        backend_args=_base_.backend_args,
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
