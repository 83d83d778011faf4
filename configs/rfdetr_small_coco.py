_base_ = './_base_/rfdetr_coco.py'
__import__('mmdet_rfdetr').set_image_size(_base_, 512)

model = dict(decoder=dict(num_layers=3))
