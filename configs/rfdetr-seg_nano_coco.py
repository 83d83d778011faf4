_base_ = './_base_/rfdetr-seg_coco.py'
_base_.model.backbone.update(num_windows=1)
__import__('mmdet_rfdetr').set_image_size(_base_, 312)

model = dict(
    num_queries=100, decoder=dict(num_layers=4), test_cfg=dict(max_per_img=100)
)
