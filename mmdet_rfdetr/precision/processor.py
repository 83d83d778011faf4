"""What computes fastest on this processor, where that was measured."""

import functools

import torch


@functools.cache
def _features() -> dict:
    """What PyTorch says of an x86 processor, where it has ``get_capabilities``.

    Empty for other architectures, which name their units otherwise.
    """
    get_capabilities = getattr(torch.cpu, 'get_capabilities', dict)
    features = get_capabilities()
    return features if features.get('architecture') == 'x86_64' else {}


def imitates_bfloat16() -> bool:
    """Whether there are no units for bfloat16 products: oneDNN imitates them."""
    features = _features()
    return bool(features) and not (
        features.get('avx512_bf16') or features.get('amx_bf16')
    )


def attends_in_float32() -> bool:
    """Whether gradients of attention take longer in bfloat16 than in float32.

    They are many small products. Processors with AMX were not measured.
    """
    features = _features()
    return bool(features) and not features.get('amx_bf16')


def multiplies_by_onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL, PyTorch's choice.

    MKL makes little use of AVX-512 on a processor of another maker.
    """
    features = _features()
    return bool(
        torch.backends.mkldnn.is_available()
        and str(features.get('cpu_name')).startswith('AMD')
        and features.get('avx512_f')
    )
