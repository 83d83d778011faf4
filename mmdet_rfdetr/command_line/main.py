"""What ``python -m mmdet_rfdetr`` does: run a tool, or look around."""

import argparse
import importlib.metadata
import platform
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import mmdet
import torch

import mmdet_rfdetr

from ..checkpoints import trust_checkpoint
from ..compat.operators import stand_in_for_compiled_ops
from ..precision.policy import has_native_bfloat16
from .config_errors import nearest
from .running import explained_errors

EXAMPLES = """\
examples:
  python -m mmdet_rfdetr env
  python -m mmdet_rfdetr tools/train.py my_config.py --work-dir work_dirs/mine
  python -m mmdet_rfdetr tools/misc/print_config.py my_config.py
  python -m mmdet_rfdetr print_config.py my_config.py
  python -m mmdet_rfdetr get_flops.py my_config.py
  torchrun --nproc-per-node 2 -m mmdet_rfdetr tools/train.py my_config.py \\
      --launcher pytorch

A tool that does not lie in the current folder is looked for among the tools that come
with this package, then among those that come with MMDetection; its file name is enough.
"""
PACKAGES = (
    'mmengine',
    'mmdet',
    'mmcv',
    'mmcv-lite',
    'numpy',
    'opencv-python',
    'pycocotools',
    'scipy',
    'safetensors',
    'setuptools',
)


def tool_folders() -> list[Path]:
    """The folders above ``tools/``, of this package and of MMDetection."""
    package = Path(mmdet_rfdetr.__file__).resolve().parent
    own = package if (package / 'tools').is_dir() else package.parent
    return [own, Path(mmdet.__file__).parent / '.mim']


def all_tools() -> list[Path]:
    """Every tool, in each folder the least nested ones first."""
    return [
        path
        for folder in tool_folders()
        for path in sorted(
            folder.glob('tools/**/*.*'), key=lambda path: (len(path.parts), path)
        )
    ]


def find_tool(name: str) -> Path | None:
    """Find a tool here, in this package, or in MMDetection, in this order.

    Args:
        name: A path, for example ``tools/train.py``, or a file name alone, which is
            found in any folder of the tools.

    Returns:
        The path of the first file found, the least nested one, or None.
    """
    candidates = [folder / name for folder in (Path(), *tool_folders())]
    candidates += [path for path in all_tools() if path.name == name]
    return next(filter(Path.is_file, candidates), None)


def run_tool(path: Path, arguments: list[str]) -> None:
    """Run a Python file as ``python FILE ...`` would, with the plugin imported.

    The current folder stays importable, for a project's own ``custom_imports``; so
    is the folder above ``tools/``, since tools of MMDetection import one another.

    Args:
        path: The file.
        arguments: What follows it on the command line.
    """
    sys.argv = [str(path), *arguments]
    folders = path.resolve().parents
    above = [folder.parent for folder in folders if folder.name == 'tools'][:1]
    sys.path[:0] = map(str, [folders[0], *above])
    of_mmdet = path.resolve().is_relative_to(Path(mmdet.__file__).resolve().parent)
    stand_in = stand_in_for_compiled_ops if of_mmdet else nullcontext
    with explained_errors(), stand_in():
        runpy.run_path(str(path), run_name='__main__')


def describe_device() -> str:
    """Name the device that would be used and say what bfloat16 means on it."""
    if not torch.cuda.is_available():
        return 'cpu: float32, or bfloat16 with model.precision.device_type=cpu'
    device = torch.device('cuda', torch.cuda.current_device())
    native = has_native_bfloat16(device)
    return f'{torch.cuda.get_device_name(device)}: ' + (
        'native bfloat16' if native else 'no native bfloat16, use float16 or float32'
    )


def environment() -> str:
    """Describe the installation: versions, device, and the active compat fixes."""
    package = Path(mmdet_rfdetr.__file__).parent
    lines = [
        f'mmdet_rfdetr {mmdet_rfdetr.__version__} ({package})',
        f'python {platform.python_version()} ({platform.platform()})',
        # It names the CUDA that it was built for, what pip knows does not.
        f'torch {torch.__version__}',
    ]
    for name in PACKAGES:
        try:
            lines.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            lines.append(f'{name} not installed')
    lines += ['', f'device: {describe_device()}', '', 'active compat fixes:']
    mmdet_rfdetr.compat.apply_to_model()
    fixes = mmdet_rfdetr.compat.active()
    lines += [f'  {name}: {reason}' for name, reason in fixes.items()] or ['  none']
    return '\n'.join(lines)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_rfdetr',
        description='Run any MMDetection tool with RF-DETR registered.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let checkpoints, pickles and other files run code while the tool reads '
        'them; for files you made yourself',
    )
    parser.add_argument(
        'tool', metavar='TOOL', help='path of a Python file, or "env" for the versions'
    )
    parser.add_argument(
        'arguments',
        nargs=argparse.REMAINDER,
        metavar='...',
        help="the tool's own arguments",
    )
    args = parser.parse_args()
    if args.tool == 'env':
        if args.arguments:
            parser.error('env takes no arguments')
        print(environment())
        return
    path = find_tool(args.tool)
    if path is None:
        similar = nearest(Path(args.tool).name, {path.name for path in all_tools()})
        hint = similar or f'(looked from {Path.cwd()})'
        parser.error(f'there is no tool {args.tool!r} {hint}')
    if path.suffix != '.py':
        parser.error(f'{path} is no Python file: run it in a shell')
    with trust_checkpoint() if args.trust_checkpoint else nullcontext():
        run_tool(path, args.arguments)
