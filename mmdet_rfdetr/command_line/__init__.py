"""What the command line tools share."""

from .. import compat
from .cpu_launch import launch_on_cpu

compat.ON_IMPORT.append(launch_on_cpu)
