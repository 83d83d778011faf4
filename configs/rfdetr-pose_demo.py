# Keypoints of drawn stick figures, from the weights of rfdetr_figures_demo.py.
_base_ = __import__('mmdet_rfdetr').config('rfdetr_figures_demo.py')

model = dict(
    keypoint_head=dict(type='RFDETRKeypointHead', num_keypoints=[5]),
    bbox_head=dict(loss_cls=dict(loss_weight=2.0)),
)
load_from = 'work_dirs/rfdetr_figures_demo/epoch_3.pth'

points = ('head', 'left_hand', 'right_hand', 'left_foot', 'right_foot')
lines = ((0, 1), (0, 2), (0, 3), (0, 4))
metainfo = dict(
    keypoint_info={i: dict(name=name, id=i) for i, name in enumerate(points)},
    skeleton_info={
        i: dict(link=(points[a], points[b]), id=i) for i, (a, b) in enumerate(lines)
    },
    sigmas=[0.05] * 5,
)
# No flip: the left hand is red, and that of a mirror image would be blue.
_base_.train_pipeline[1].update(type='RFDETRLoadKeypoints')
_base_.train_pipeline[2:] = [dict(type='RFDETRPackKeypoints')]
for _loader in (_base_.train_dataloader, _base_.val_dataloader):
    _loader.dataset.update(kind='RFDETRCocoKeypointDataset')
    _loader.dataset.metainfo.update(metainfo)
_base_.train_dataloader.dataset.pipeline = _base_.train_pipeline
_base_.test_pipeline[2].update(type='RFDETRLoadKeypoints')
_base_.test_pipeline[-1].update(type='RFDETRPackKeypoints')
_base_.val_dataloader.dataset.pipeline = _base_.test_pipeline
test_dataloader = _base_.val_dataloader
val_evaluator = dict(type='RFDETRCocoKeypointMetric', metric=['bbox', 'keypoints'])
test_evaluator = val_evaluator

visualizer = dict(type='RFDETRKeypointVisualizer')
default_hooks = dict(checkpoint=dict(save_best='coco/keypoints_mAP'))
max_epochs = 1
train_cfg = dict(max_epochs=max_epochs)
