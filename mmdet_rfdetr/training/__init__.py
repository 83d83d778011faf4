"""Parts of the training recipe, which a config selects by their registered names."""

from . import class_names as class_names
from . import drop_schedule as drop_schedule
from . import ema as ema
from . import lr_schedule as lr_schedule
from . import optim_constructor as optim_constructor
from . import val_loss as val_loss
