"""A sub-net as an ordinary model: its config and its checkpoint."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from ..checkpoints import load_checkpoint_file, save_checkpoint_file
from ..checkpoints.layout import INFO_KEY
from ..errors import SettingError
from ..image_size import set_image_size
from ..ops.resampling import resample_patch_kernel, resize_position_table
from .space import Subnet

TABLES = 'query_embedding', 'reference_embedding'
LAYERS = 'decoder.layers.', 'mask_head.blocks.'


def export_subnet(
    cfg: Config, checkpoint: str | Path, subnet: Subnet, folder: str | Path
) -> tuple[Path, Path]:
    """Write an ordinary config and checkpoint of a sub-net.

    Args:
        cfg: whole config of the super-net.
        checkpoint: file that fits it, also an official one.
        subnet: patches and windows may be others than those of the space.
        folder: where to; it is made. The files are named after the sub-net.

    Returns:
        Paths of the config and of the checkpoint.

    Raises:
        SettingError: the config has no search space, or less than the sub-net asks for.
        CheckpointError: the checkpoint does not fit the config.
    """
    exported = subnet_config(cfg, subnet)
    folder = Path(folder).absolute()
    config_path, path = (folder / f'{subnet.name}{end}' for end in ('.py', '.pth'))
    exported['load_from'] = str(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    file = load_checkpoint_file(checkpoint)
    meta = {key: file.get('meta', {}).get(key) for key in ('dataset_meta', 'epoch')}
    meta = {key: value for key, value in meta.items() if value is not None}
    if 'dataset_meta' in meta:
        model.dataset_meta = meta['dataset_meta']
    model.load_state_dict(file.get('state_dict', file), strict=False)
    folder.mkdir(parents=True, exist_ok=True)
    weights = subnet_weights(model.state_dict(), subnet)
    meta[INFO_KEY] = dict(subnet=subnet.name)
    save_checkpoint_file(dict(state_dict=weights, meta=meta), path)
    said = f'# Sub-net {subnet.name}: an ordinary model, whose weights are load_from.\n'
    config_path.write_text(said + exported.pretty_text, encoding='utf-8')
    return config_path, path


def subnet_config(cfg: Config, subnet: Subnet) -> Config:
    """The config of the ordinary model that a sub-net is.

    Args:
        cfg: of the super-net; it stays as it is.
        subnet: which.

    Raises:
        SettingError: there is no search space, or the sub-net asks for too much.
    """
    subnet.checked()
    cfg = copy.deepcopy(cfg)
    model = cfg.model
    if model.pop('search_space', None) is None:
        raise SettingError(
            f'{cfg.filename or "this config"} has no model.search_space to take '
            f'{subnet.name} from: give the config that the checkpoint was trained with'
        )
    layers, queries = model.decoder.num_layers, model.num_queries
    if subnet.num_layers > layers or subnet.num_queries > queries:
        raise SettingError(
            f'{subnet.name} asks for more than the model has: at most d{layers} and '
            f'q{queries}'
        )
    sizes = dict(patch_size=subnet.patch_size, num_windows=subnet.num_windows)
    model.backbone.update(sizes)
    set_image_size(cfg, subnet.image_size)
    model.backbone.pos_embed_size = subnet.image_size // subnet.patch_size
    model.decoder.num_layers = subnet.num_layers
    model.num_queries = subnet.num_queries
    _without_search(cfg)
    if not subnet.num_layers:
        cfg.find_unused_parameters = True  # of the decoder, in data-parallel training
    return cfg


def _without_search(cfg: Config) -> None:
    """Take out of a config what is there for the search alone."""
    preprocessor = cfg.model.get('data_preprocessor') or {}
    augments = preprocessor.get('batch_augments') or []
    kept = [x for x in augments if x['type'] != 'RFDETRBatchSubnetSize']
    if augments:
        preprocessor['batch_augments'] = kept or None
    hooks = cfg.get('default_hooks', {})
    for name in [name for name, hook in hooks.items() if _is_of_search(hook)]:
        del hooks[name]
    if 'custom_hooks' in cfg:
        cfg.custom_hooks = [x for x in cfg.custom_hooks if not _is_of_search(x)]
    for hook in (*hooks.values(), *(cfg.get('custom_hooks') or ())):
        for key in ('save_best', 'monitor'):
            name = (hook or {}).get(key)
            if isinstance(name, str) and '/' in name:
                hook[key] = f'coco/{name.rpartition("/")[2]}'
    if _is_of_search(cfg.get('val_cfg')):
        cfg.val_cfg = dict(type='ValLoop')
    for key in ('work_dir', 'resume'):
        cfg.pop(key, None)


def _is_of_search(part: Mapping | None) -> bool:
    return str((part or {}).get('type', '')).startswith('RFDETRSubnet')


@torch.no_grad()
def subnet_weights(
    weights: Mapping[str, Tensor], subnet: Subnet
) -> OrderedDict[str, Tensor]:
    """The state dict of the ordinary model that a sub-net is.

    Args:
        weights: state dict of the super-net; it stays as it is.
        subnet: which.
    """
    grid = (subnet.image_size // subnet.patch_size,) * 2
    taken = OrderedDict()
    for name, value in weights.items():
        if name.startswith(LAYERS):
            if int(name.split('.')[2]) >= subnet.num_layers:
                continue
        elif name == 'backbone.patch_embed.weight':
            value = resample_patch_kernel(value, subnet.patch_size)
        elif name == 'backbone.pos_embed':
            value = resize_position_table(value, grid)
        elif name in TABLES:
            value = value[:, : subnet.num_queries]
        taken[name] = value.clone()
    return taken
