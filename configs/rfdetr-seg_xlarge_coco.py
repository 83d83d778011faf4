_base_ = './_base_/rfdetr-seg_coco.py'
__import__('mmdet_rfdetr').set_image_size(_base_, 624)

model = dict(
    num_queries=300, decoder=dict(num_layers=6), test_cfg=dict(max_per_img=300)
)
