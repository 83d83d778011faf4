"""RF-DETR, in the order in which data flows.

The legend of shapes, used in every docstring:

=====  ==============================================================
``B``  images of a batch
``C``  width of the ViT
``D``  width of decoder and projector
``Q``  queries of one group
``G``  groups, ``g`` those in use: all in training, otherwise one
``N``  queries of all groups in use, ``g * Q``, group after group
``L``  levels of the projector
``S``  memory tokens, those of all levels together
``H``  attention heads
``P``  sampling points of a head in a level
``K``  classes
``T``  objects (targets) of a batch
``R``  queries of all decoder layers and of the encoder together
``M``  rows of the ViT's batch axis, one a window
``k``  tokens that a group selects; ``N_enc`` is ``g * k``
``h``  rows of a feature map, ``w`` its columns
=====  ==============================================================
"""

from .backbone import RFDETRBackbone
from .detector import RFDETR
from .head import RFDETRHead
from .projector import RFDETRProjector
from .task_head import TaskHead

__all__ = ['RFDETR', 'RFDETRBackbone', 'RFDETRHead', 'RFDETRProjector', 'TaskHead']
