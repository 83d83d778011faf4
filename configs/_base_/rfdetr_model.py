# The parts of the model that all variants share; a variant sets the sizes.
custom_imports = dict(imports=['mmdet_rfdetr'], allow_failed_imports=False)
default_scope = 'mmdet'

# Input size in pixels. To change it, and everything that depends on it, write
# `set_image_size(_base_, 512)` in a config or `--cfg-options image_size=512`.
image_size = 576

model = dict(
    type='RFDETR',
    precision=dict(device_type='cuda', dtype='bfloat16'),
    num_queries=300,
    num_groups=13,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        batch_augments=[
            dict(
                type='RFDETRBatchMultiScale',
                image_size=image_size,
                size_divisor=32,
            )
        ],
    ),
    backbone=dict(
        type='RFDETRBackbone',
        embed_dims=384,
        num_heads=6,
        patch_size=16,
        num_windows=2,
        out_indices=(3, 6, 9, 12),
        pos_embed_size=36,
    ),
    neck=dict(
        type='RFDETRProjector',
        in_channels=[384, 384, 384, 384],
        out_channels=256,
        scales=('P4',),
    ),
    decoder=dict(
        num_layers=4,
        self_attn_heads=8,
        cross_attn_heads=16,
        num_points=2,
        feedforward_channels=2048,
    ),
    bbox_head=dict(
        type='RFDETRHead',
        num_classes=80,
        loss_cls=dict(type='RFDETRIoUAwareBCELoss', alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='RFDETRGIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='RFDETRHungarianAssigner',
            cls_weight=2.0,
            bbox_weight=5.0,
            iou_weight=2.0,
        )
    ),
    test_cfg=dict(max_per_img=300),
)
