# A family of models in one run: sub-nets that share all weights, from those of Medium.
_base_ = './_base_/rfdetr_coco.py'
__import__('mmdet_rfdetr').set_image_size(_base_, 576)
_base_.train_dataloader.dataset.pipeline[1].update(image_size=768, offsets=(0,))

# Or any official file with its config's sizes: its patches and positions are the home
# of all sub-nets, and the sub-net of its own size is the file.
load_from = 'rfdetr://medium'

model = dict(
    # Sizes with patches and windows are drawn in training; layers and queries are cut
    # afterwards. max_tokens bounds the patches of an image: 3600 are 60 x 60.
    search_space=dict(
        image_sizes=[320, 384, 448, 512, 576, 640, 704, 768],
        patch_sizes=[12, 16, 20, 24],
        num_windows=[1, 2, 4],
        num_layers=[0, 1, 2, 3, 4],
        num_queries=[50, 100, 200, 300],
        max_tokens=3600,
    ),
    data_preprocessor=dict(batch_augments=[dict(type='RFDETRBatchSubnetSize')]),
)
val_cfg = dict(
    type='RFDETRSubnetValLoop', val_subnets=('largest', 'middle', 'smallest')
)
# The smallest rate of the recipe is that of patches and positions (3.2e-6 with 1.5e-4
# of the ViT), and a new patch size lives on them.
optim_wrapper = dict(paramwise_cfg=dict(lr_embeddings=1.5e-5))
default_hooks = dict(
    subnet=dict(type='RFDETRSubnetHook', draw='uniform'),
    checkpoint=dict(save_best='search/bbox_mAP'),
)
