import platform
import subprocess
import sys

import pytest

from mmdet_rfdetr.speed import allocator

CODE = """
import importlib.util, resource, sys
import torch
spec = importlib.util.spec_from_file_location('allocator', sys.argv[1])
allocator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(allocator)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(int(sys.argv[3])):
        torch.ones(int(sys.argv[2]) * 2**20 // 4)  # 256 pages a MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
assert allocator.keep_freed_memory()
# What a small tensor is cut from may be too small for the next one: once or twice.
print(min(faults() for _ in range(4)))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='the setting is one of glibc'
)
@pytest.mark.parametrize(
    ('mebibytes', 'times'),
    [
        pytest.param(64, 5, id='usual', marks=pytest.mark.long),
        pytest.param(2200, 1, id='more than an int', marks=pytest.mark.slow),
    ],
)
def test_freed_memory_is_used_again_without_page_faults(mebibytes, times):
    result = subprocess.run(
        [sys.executable, '-c', CODE, allocator.__file__, str(mebibytes), str(times)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, result.stdout.split())
    assert before > 100 * after + 100


@pytest.mark.parametrize(
    ('system', 'libc'), [('Darwin', ('', '')), ('Linux', ('musl', '1.2'))]
)
def test_other_systems_are_left_alone(monkeypatch, system, libc):
    monkeypatch.setattr(platform, 'system', lambda: system)
    monkeypatch.setattr(platform, 'libc_ver', lambda: libc)
    monkeypatch.setattr(
        allocator.ctypes, 'CDLL', lambda name: pytest.fail('loaded a library')
    )
    assert not allocator.keep_freed_memory()
