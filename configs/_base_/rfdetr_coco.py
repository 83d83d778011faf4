# RF-DETR on COCO, with the sizes of Medium.
_base_ = [
    './rfdetr_model.py',
    './coco_detection.py',
    './schedule.py',
    './runtime.py',
]
