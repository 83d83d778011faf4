_base_ = './_base_/rfdetr_coco.py'
_base_.model.backbone.update(patch_size=20, num_windows=1, pos_embed_size=35)
__import__('mmdet_rfdetr').set_image_size(_base_, 700)

model = dict(
    backbone=dict(embed_dims=768, num_heads=12),
    neck=dict(in_channels=[768, 768, 768, 768], out_channels=512),
    decoder=dict(num_layers=5, self_attn_heads=16, cross_attn_heads=32, num_points=4),
)
