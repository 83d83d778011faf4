# The default variant.
_base_ = './rfdetr_medium_coco.py'
