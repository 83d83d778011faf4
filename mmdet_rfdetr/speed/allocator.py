"""Keep freed memory in the process."""

import ctypes
import platform

from mmdet.registry import HOOKS
from mmengine.hooks import Hook

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@HOOKS.register_module()
class RFDETRAllocatorHook(Hook):
    """Make training on a CPU faster by not returning memory to the system.

    glibc gives every large freed tensor back to the kernel, which has to clear its
    pages when the next one is allocated. Keeping them is worth about a sixth of a
    CPU training step; the process keeps its largest size. Does nothing on other
    systems than Linux with glibc; CUDA memory is not concerned.
    """

    priority = 'HIGHEST'

    def before_run(self, runner) -> None:
        """Set glibc's allocator up; it stays so for the rest of the process."""
        if keep_freed_memory():
            runner.logger.info('Freed memory stays in the process (glibc mallopt).')


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory.

    Returns:
        Whether glibc is there and took all settings.
    """
    if platform.system() != 'Linux' or platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No tensor gets a mapping of its own, which would end with it. To raise the size
    # from which tensors do is refused by an older glibc, and ends at 2 GiB.
    settings = (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 * 2**20)
    return all(mallopt(name, value) == 1 for name, value in settings)
