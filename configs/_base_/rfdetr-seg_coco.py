# RF-DETR with instance masks on COCO, with the sizes of Seg Preview.
_base_ = ['./rfdetr_model.py', './coco_detection.py', './speed.py']
_base_.model.backbone.update(patch_size=12, pos_embed_size=48)
_base_.train_pipeline[1].update(type='RFDETRLoadAnnotations', with_mask=True)
_base_.test_pipeline[2].update(type='RFDETRLoadAnnotations', with_mask=True)
__import__('mmdet_rfdetr').set_image_size(_base_, 432)

model = dict(
    num_queries=200,
    mask_head=dict(type='RFDETRMaskHead', downsample_ratio=4),
    bbox_head=dict(
        loss_mask=dict(type='RFDETRPointMaskLoss', mask_weight=5.0, dice_weight=5.0)
    ),
    train_cfg=dict(assigner=dict(mask_weight=5.0, dice_weight=5.0)),
    test_cfg=dict(max_per_img=200),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP'))
