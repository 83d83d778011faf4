# A small RF-DETR and a short schedule, to train from nothing on two CPU cores in
# minutes: the same classes as the variants, smaller numbers. One higher rate for
# all parameters, since nothing is pretrained.
_base_ = ['./rfdetr_model.py', './speed.py']
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
    test_cfg=dict(max_per_img=64),
)

optim_wrapper = dict(
    _delete_=True,
    type='RFDETRAmpOptimWrapper',
    constructor='RFDETRUniformOptimWrapperConstructor',
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
randomness = dict(seed=0)
