# RF-DETR with the keypoints of persons on COCO, with the sizes of Medium.
_base_ = ['./rfdetr_model.py', './coco_detection.py', './speed.py']

model = dict(
    num_queries=100,
    keypoint_head=dict(
        type='RFDETRKeypointHead',
        num_keypoints=[17],
        l1_weight=1.0,
        findable_weight=1.0,
        visible_weight=1.0,
        nll_weight=1.0,
    ),
    bbox_head=dict(num_classes=1, loss_cls=dict(loss_weight=2.0)),
    test_cfg=dict(max_per_img=100),
)

visualizer = dict(type='RFDETRKeypointVisualizer')
default_hooks = dict(
    checkpoint=dict(save_best='coco/keypoints_mAP'),
    unit_precision=dict(type='RFDETRUnitPrecisionHook'),
)
_base_.train_pipeline[1].update(type='RFDETRLoadKeypoints')
_base_.train_pipeline[-1].update(type='RFDETRPackKeypoints')
_base_.test_pipeline[2].update(type='RFDETRLoadKeypoints')
_base_.test_pipeline[-1].update(type='RFDETRPackKeypoints')
persons = dict(type='RFDETRCocoKeypointDataset', metainfo=dict(classes=('person',)))
train_dataloader = dict(
    dataset=dict(
        **persons,
        ann_file='annotations/person_keypoints_train2017.json',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        **persons,
        ann_file='annotations/person_keypoints_val2017.json',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='RFDETRCocoKeypointMetric',
    ann_file=_base_.data_root + 'annotations/person_keypoints_val2017.json',
    metric=['bbox', 'keypoints'],
)
test_evaluator = val_evaluator
