# The first segmentation model (checkpoint rf-detr-seg-preview.pt).
_base_ = './_base_/rfdetr-seg_coco.py'
