_base_ = './_base_/rfdetr_coco.py'
_base_.model.backbone.update(patch_size=14, num_windows=4, pos_embed_size=37)
__import__('mmdet_rfdetr').set_image_size(_base_, 560)

model = dict(
    backbone=dict(out_indices=(2, 5, 8, 11)),
    decoder=dict(num_layers=3),
)
# Block 11 is not built, since its output is unused, but counts for the rates.
default_hooks = dict(drop_schedule=dict(depth=12))
