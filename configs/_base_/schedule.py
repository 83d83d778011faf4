# The official fine-tuning recipe: 100 epochs, one rate until epoch 100.
max_epochs = 100

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='RFDETRAmpOptimWrapper',
    constructor='RFDETROptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        lr_encoder=1.5e-4, lr_vit_layer_decay=0.8, lr_component_decay=0.7
    ),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = dict(
    type='RFDETRLR', preset='step', lr_drop=100, convert_to_iter_based=True
)

# Used by --auto-scale-lr, or if enabled. The rates were chosen for 16 images a step:
# what the official automatic batch size aims at, and the default until it became 4.
auto_scale_lr = dict(base_batch_size=16, enable=False)
