"""What the command line tools share."""

from .. import compat
from .cpu_launch import launch_on_cpu
from .loading import find_official_weights

compat.ON_IMPORT += [launch_on_cpu, find_official_weights]
