"""Count what a piece of work would launch on a GPU, without one."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

NO_KERNEL = frozenset(
    (
        *('alias', 'as_strided', 'detach', 'diagonal', 'expand', 'lift_fresh'),
        *('permute', 'select', 'slice', 'split', 'split_with_sizes', 'squeeze', 't'),
        *('transpose', 'unbind', 'unfold', 'unsqueeze', 'view', '_unsafe_view'),
        *('_reshape_alias', 'empty', 'empty_like', 'empty_strided', 'new_empty'),
        *('new_empty_strided', 'is_same_size', 'resolve_conj', 'resolve_neg'),
    )
)
"""Operators that only describe memory, or reserve it."""
HOST_READ = frozenset(('_local_scalar_dense', 'nonzero', 'equal', 'is_nonzero'))
"""Operators that make the host wait for a result of the device."""


class Kernels(TorchDispatchMode):
    """Counts operators below autograd, where composite ones are taken apart.

    Use it outside of inference mode, which leaves composite operators whole. A copy
    to the CPU reads on a GPU, too; here it is seen only if its destination is named,
    which is why ``reads`` holds for the operators of ``HOST_READ``.

    Attributes:
        launched: number of calls of each operator that is a kernel.
        reads: number of calls of each operator of ``HOST_READ``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let compiled functions run as ever; what they fuse is not seen here."""
        return True

    @property
    def total(self) -> int:
        """Number of kernels."""
        return self.launched.total()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split('::')[1].split('.')[0]
        if name in HOST_READ:
            self.reads[name] += 1
        elif name not in NO_KERNEL:
            self.launched[name] += 1
        return function(*args, **(kwargs or {}))
