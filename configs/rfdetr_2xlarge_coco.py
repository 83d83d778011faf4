_base_ = './rfdetr_xlarge_coco.py'
_base_.model.backbone.update(num_windows=2)
__import__('mmdet_rfdetr').set_image_size(_base_, 880)
