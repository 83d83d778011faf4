# The official keypoint model.
_base_ = './_base_/rfdetr-pose_coco.py'
_base_.model.backbone.update(patch_size=12, pos_embed_size=48)
__import__('mmdet_rfdetr').set_image_size(_base_, 576)
