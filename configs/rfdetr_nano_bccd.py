# Fine-tune on your own data in COCO format: copy this file and change what is
# between the lines. Here: blood cells, three classes.
_base_ = __import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')

# ---------------------------------------------------------------------------
data_root = 'data/bccd/'
metainfo = dict(
    classes=('RBC', 'WBC', 'Platelets'),
    palette=[(220, 20, 60), (30, 144, 255), (250, 170, 30)],
)
train = dict(ann_file='annotations/train.json', data_prefix=dict(img='images/'))
val = dict(ann_file='annotations/val.json', data_prefix=dict(img='images/'))
# An official RF-DETR checkpoint, or None to train from nothing.
load_from = None
# ---------------------------------------------------------------------------

model = dict(bbox_head=dict(num_classes=len(metainfo['classes'])))
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, **train))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, **val))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val['ann_file'])
test_evaluator = val_evaluator
