"""A detector with a search space, and what it takes to make it one of its sub-nets.

All sub-nets are the same tensors: the kernel of the patches and the position table are
resampled from the sizes that they are stored in, the decoder stops early, and of each
table of queries the first rows are used. A sub-net computes what the ordinary model of
its config and checkpoint does (``export.py``), bit for bit.

The proposals of few queries are not always the first of those of many: which of equally
good tokens ``topk`` takes, and where it puts them, depends on how many it takes. So the
selection is run for each number of queries; next to the backbone it costs nothing.
"""

import inspect
import math
from collections.abc import Mapping

from torch import Tensor, nn

from ..checkpoints.variants import EXPLANATIONS
from ..errors import DeployedModelError, ImageSizeError, SettingError
from ..models import RFDETRBackbone
from ..models.detector import MODEL_KEYS
from ..ops.unwrapped import unwrap_model
from .operations import Operations
from .space import SearchSpace, Subnet

KEYS = tuple(inspect.signature(SearchSpace).parameters)


def add_search_space(model: nn.Module, settings: Mapping) -> None:
    """Give a detector its space; until a sub-net is set it is the ordinary model.

    Args:
        model: an ``RFDETR``, built; it gets ``search_space`` and ``subnet`` (None).
        settings: arguments of :class:`SearchSpace`.

    Raises:
        SettingError: a key is unknown or missing, or the model is too small for it.
    """
    if not isinstance(settings, Mapping) or set(settings) - set(KEYS):
        raise SettingError(
            f'model.search_space={settings!r} must be a dict of some of {list(KEYS)}'
        )
    if missing := [key for key in KEYS[:-1] if key not in settings]:
        raise SettingError(f'model.search_space lacks {missing}: set them to lists')
    if type(model.backbone) is not RFDETRBackbone:
        raise SettingError(
            f'model.search_space and model.backbone.type='
            f'{type(model.backbone).__name__} do not go together: patches and windows '
            'are those of RFDETRBackbone'
        )
    if others := set(model.bbox_head.task_heads) - {'mask_head'}:
        raise SettingError(
            f'model.search_space and model.{min(others)} do not go together: parts of '
            'this head belong to a decoder layer, which a sub-net may lack'
        )
    space = SearchSpace(**settings)
    for key, most in (
        ('num_layers', len(model.decoder.layers)),
        ('num_queries', model.query_embedding.shape[1]),
    ):
        largest = max(getattr(space, key))
        if largest > most:
            raise SettingError(
                f'model.search_space.{key} goes up to {largest} and the model has '
                f"{most}: lower it, or raise the model's"
            )
    model.search_space = space
    model.subnet = None
    model.home_windows = model.backbone.num_windows
    model.backbone.image_size = 0  # any
    preprocessor = model.data_preprocessor
    model.home_divisor = getattr(preprocessor, 'pad_size_divisor', None)
    model.backbone.register_forward_pre_hook(_refuse_another_size)


MODEL_KEYS['search_space'] = add_search_space


def name_command(entries: Mapping, sizes: Mapping, info: Mapping) -> str | None:
    """Say of a super-net that its sub-nets have to be exported; see EXPLANATIONS."""
    if 'search_space' not in info:
        return None
    return (
        'it is a super-net: use the config that it was trained with, or take a sub-net '
        'from it by python tools/export_subnet.py CONFIG CHECKPOINT '
        's480-p12-w2-d3-q200 OUT with that config'
    )


EXPLANATIONS.append(name_command)


def home_subnet(model: nn.Module) -> Subnet:
    """The sub-net that is the checkpoint as it is stored.

    Its size is that of the position table, or the nearest that patches and windows
    divide.
    """
    backbone = model.backbone
    patch = backbone.patch_embed.kernel_size[0]
    windows = model.home_windows
    grid = math.isqrt(backbone.pos_embed.shape[1] - 1)
    grid = max(1, round(grid / windows)) * windows
    layers, queries = len(model.decoder.layers), model.query_embedding.shape[1]
    return Subnet(grid * patch, patch, windows, layers, queries)


def set_subnet(model: nn.Module, subnet: Subnet) -> None:
    """Make a detector one of its sub-nets, until another is set.

    Patches and windows that the space does not have are allowed.

    Args:
        model: an ``RFDETR`` with a search space, or a wrapper around one.
        subnet: what it is to be.

    Raises:
        SettingError: the model has no space, or less than the sub-net asks for.
        DeployedModelError: it was switched to deploy.
    """
    model = unwrap_model(model)
    if not hasattr(model, 'search_space'):
        raise SettingError(
            f'{subnet.name} is a sub-net of a model with a search space: set '
            'model.search_space, as configs/rfdetr_search_coco.py does'
        )
    if getattr(model, 'deployed', False) and subnet != model.subnet:
        raise DeployedModelError(
            f'This model was switched to deploy and cannot become {subnet.name}: build '
            'the model anew, and set the sub-net before switch_to_deploy()'
        )
    subnet.checked()
    layers, queries = len(model.decoder.layers), model.query_embedding.shape[1]
    if subnet.num_layers > layers or subnet.num_queries > queries:
        raise SettingError(
            f'{subnet.name} asks for more than the model has: at most d{layers} and '
            f'q{queries}'
        )
    _apply(model, subnet, subnet.image_size)
    model.subnet = subnet


def reset_subnet(model: nn.Module) -> None:
    """Make a super-net what is stored again, an ordinary model for any size."""
    _apply(model, home_subnet(model), None)
    model.subnet = None


def _apply(model: nn.Module, subnet: Subnet, image_size: int | None) -> None:
    model.backbone.patch_size = subnet.patch_size
    model.backbone.num_windows = subnet.num_windows
    model.decoder.num_layers = subnet.num_layers
    model.num_queries = subnet.num_queries
    model.backbone.image_size = image_size or 0
    for part in model.data_preprocessor.modules():
        # A batch has the size of the sub-net or is refused, so that none is padded.
        if getattr(part, 'pad_size_divisor', None) is not None:
            part.pad_size_divisor = model.home_divisor if image_size is None else 1
        if hasattr(part, 'image_size'):
            part.image_size = image_size or 0


def by_operations(model: nn.Module) -> list[Subnet]:
    """What is drawn, one of each size, patch and windows, by ascending operations."""
    space = model.search_space
    drawn = map(space.with_all, space.triples)
    operations = Operations(model)
    return sorted(drawn, key=lambda subnet: (operations.of(subnet), subnet))


def _refuse_another_size(backbone: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Keep a sub-net and its batch from disagreeing."""
    side, given = backbone.image_size, tuple(inputs[0].shape[-2:])
    if side and given != (side, side):
        raise ImageSizeError(
            f'A batch of {given[0]} x {given[1]} pixels came to a sub-net of {side}: '
            'resize the images to that size, in training by '
            "data_preprocessor.batch_augments=[dict(type='RFDETRBatchSubnetSize')]"
        )
