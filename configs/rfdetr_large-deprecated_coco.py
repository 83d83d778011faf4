# The first Large (checkpoint rf-detr-large.pth), before the release of 2026.
_base_ = './rfdetr_base_coco.py'

model = dict(
    backbone=dict(embed_dims=768, num_heads=12),
    neck=dict(in_channels=[768, 768, 768, 768], out_channels=384, scales=('P3', 'P5')),
    decoder=dict(self_attn_heads=12, cross_attn_heads=24, num_points=4),
)
