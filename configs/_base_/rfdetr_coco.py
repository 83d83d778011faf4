# RF-DETR on COCO, with the sizes of Medium.
_base_ = ['./rfdetr_model.py', './fast_loading.py', './speed.py']
