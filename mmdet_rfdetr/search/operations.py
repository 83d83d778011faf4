"""Operations and parameters of sub-nets by formula, attention included.

An operation is a multiplication or an addition of a matrix product or a convolution, as
``torch.utils.flop_counter`` counts them. All are of one image.
"""

from collections.abc import Iterable, Sequence

from torch import nn

from ..errors import SettingError
from ..models import RFDETRProjector

LINEAR = nn.Linear, nn.Conv2d, nn.ConvTranspose2d


class Operations:
    """What the sub-nets of a detector cost.

    Args:
        model: an ``RFDETR`` with its own backbone and neck. Its largest sub-net is the
            model itself.

    Raises:
        SettingError: the neck is another one.
    """

    def __init__(self, model: nn.Module) -> None:
        backbone = model.backbone
        if type(model.neck) is not RFDETRProjector:
            raise SettingError(
                f'model.neck.type={type(model.neck).__name__}: operations are known of '
                'RFDETRProjector; set it, or leave model.search_space out'
            )
        self._groups = model.num_groups
        self._width, self._dims = backbone.embed_dims, model.decoder.embed_dims
        self._channels = backbone.patch_embed.in_channels
        self._extra = 1 + backbone.num_registers
        self._maps = len(backbone.out_indices)
        self._global = len(set(backbone.out_indices) & {*range(len(backbone.blocks))})
        self._windowed = len(backbone.blocks) - self._global
        self._blocks = 2 * weights_of([backbone.blocks])
        self._stages = [_stage_weights(stage) for stage in model.neck.stages]
        selection = model.query_selection
        of_group = 2 * selection.fc.weight[0].numel()
        self._token = of_group + 2 * selection.fc_cls.weight[0].numel()
        self._proposal = 2 * sum(x.weight[0].numel() for x in selection.fc_reg)
        self._position = 2 * weights_of([model.decoder.ref_point_head])
        self._head = 2 * weights_of([model.bbox_head.fc_cls, model.bbox_head.fc_reg])
        self._parameters = sum(p.numel() for p in model.parameters())
        self._kernel = backbone.patch_embed.weight.numel()
        self._table = backbone.pos_embed.shape[1] - 1
        self._queries = model.query_embedding.shape[1]
        self._layers = len(model.decoder.layers)
        self._value = self._layer = self._layer_parameters = 0
        for layer in list(model.decoder.layers)[:1]:
            self._value = 2 * layer.cross_attn.value_proj.weight.numel()
            packed = 2 * layer.self_attn.in_proj_weight.numel()
            self._layer = 2 * weights_of([layer]) + packed - self._value
            self._layer_parameters = sum(p.numel() for p in layer.parameters())

    def trunk(self, image_size: int, patch_size: int, num_windows: int) -> int:
        """Of backbone, neck, and the scores of all tokens."""
        grid, windows = image_size // patch_size, num_windows**2
        tokens = grid**2
        rows = self.rows((image_size, patch_size, num_windows))
        pixels = self._channels * patch_size**2
        attention = self._windowed * rows**2 // windows + self._global * rows**2
        return (
            2 * tokens * self._width * pixels
            + rows * self._blocks
            + 4 * self._width * attention
            + sum(self._of_stage(stage, grid) for stage in self._stages)
            + self._memory(grid) * self._token
        )

    def layer(self, num_queries: int, grid: int) -> int:
        """Of a decoder layer that reads the maps of a square grid of patches."""
        of_queries = num_queries * self._layer + 4 * self._dims * num_queries**2
        return of_queries + self._memory(grid) * self._value

    def of(self, subnet: Sequence[int]) -> int:
        """Of one prediction.

        Args:
            subnet: size, patch size, windows, layers and queries.
        """
        return self.shared([subnet])

    def shared(self, subnets: Iterable[Sequence[int]]) -> int:
        """Of one prediction by each of some sub-nets of a size, patch and windows.

        There is one trunk, one decoder run for each number of queries, and a head for
        each sub-net.
        """
        subnets = list(subnets)
        triple, grid = subnets[0][:3], subnets[0][0] // subnets[0][1]
        total = self.trunk(*triple)
        for count in {each[4] for each in subnets}:
            depths = [each[3] for each in subnets if each[4] == count]
            heads = sum(depth > 0 for depth in depths)
            of_query = (
                self._proposal + heads * self._head + bool(heads) * self._position
            )
            total += count * of_query + max(depths) * self.layer(count, grid)
        return total

    def parameters(self, subnet: Sequence[int]) -> int:
        """Of the exported model, with the query tables of all groups."""
        size, patch, _, layers, queries = subnet
        kernel = self._width * self._channels * patch**2
        rows = (size // patch) ** 2 - self._table
        tables = self._groups * (self._dims + 4)
        return (
            self._parameters
            + kernel
            - self._kernel
            + rows * self._width
            + (queries - self._queries) * tables
            + (layers - self._layers) * self._layer_parameters
        )

    def memory(self, subnet: Sequence[int], batch: int) -> int:
        """Bytes, about, of the weights and of what is alive in a float32 forward.

        Most is alive in a block: its input and output, and twice its hidden features;
        besides there are the maps that were taken before.
        """
        rows = self.rows(subnet) * batch
        alive = (10 + self._maps) * self._width * rows
        return 4 * (self._parameters + alive)

    def rows(self, subnet: Sequence[int]) -> int:
        """Rows of the blocks: patches, and the extra tokens of each window."""
        return (subnet[0] // subnet[1]) ** 2 + subnet[2] ** 2 * self._extra

    def _memory(self, grid: int) -> int:
        """Tokens that a decoder layer reads."""
        return sum(_side(scale, grid) ** 2 for scale, *_ in self._stages)

    @staticmethod
    def _of_stage(stage: tuple[str, int, int], grid: int) -> int:
        scale, branches, rest = stage
        positions = _side(scale, grid) ** 2
        # A transposed convolution works at its inputs, the others at their outputs.
        return 2 * branches * min(positions, grid**2) + 2 * rest * positions


def weights_of(parts: Iterable[nn.Module]) -> int:
    """Numbers in the weights of all linear layers and convolutions of some modules."""
    modules = (module for part in parts for module in part.modules())
    return sum(x.weight.numel() for x in modules if isinstance(x, LINEAR))


def _stage_weights(stage: nn.Module) -> tuple[str, int, int]:
    """Scale of a level of the neck, weights of its branches, and of what follows."""
    kinds = {nn.Identity: 'P4', nn.ConvTranspose2d: 'P3'}
    scale = kinds.get(type(stage.branches[0]), 'P5')
    return scale, weights_of(stage.branches), weights_of([stage.c2f])


def _side(scale: str, grid: int) -> int:
    """Side of the map of a level."""
    return {'P3': 2 * grid, 'P4': grid, 'P5': (grid + 1) // 2}[scale]
