"""What ``python -m mmdet_rfdetr`` does: run a tool, or look around.

The console command ``mmdet-rfdetr`` loads this file without its package. So nothing
beyond Python's own library is imported at the top, and the package by what needs it.
"""

import argparse
import difflib
import importlib.metadata
import importlib.util
import platform
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

EXAMPLES = """\
examples:
  python -m mmdet_rfdetr env
  python -m mmdet_rfdetr train-on data/mine --model nano
  python -m mmdet_rfdetr train my_config.py --work-dir work_dirs/mine
  python -m mmdet_rfdetr tools/train.py my_config.py --work-dir work_dirs/mine
  python -m mmdet_rfdetr tools/misc/print_config.py my_config.py
  python -m mmdet_rfdetr print_config.py my_config.py
  python -m mmdet_rfdetr get_flops.py my_config.py
  torchrun --nproc-per-node 2 -m mmdet_rfdetr tools/train.py my_config.py \\
      --launcher pytorch

A tool that does not lie in the current folder is looked for among the tools that come
with this package, then among those that come with MMDetection; its file name is enough.
A name without .py is one of these. mmdet-rfdetr is short for python -m mmdet_rfdetr.
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
    package = Path(__file__).resolve().parents[1]
    own = package if (package / 'tools').is_dir() else package.parent
    return [own, _package_folder('mmdet') / '.mim']


def _package_folder(name: str) -> Path:
    return Path(*importlib.util.find_spec(name).submodule_search_locations).resolve()


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
            found in any folder of the tools; without ``.py``, not in the current one.

    Returns:
        The path of the first file found, the least nested one, or None.
    """
    candidates = [folder / name for folder in (Path(), *tool_folders())]
    names = (name, f'{name}.py', f'{name.replace("-", "_")}.py')
    candidates += [path for path in all_tools() if path.name in names]
    return next(filter(Path.is_file, candidates), None)


def run_tool(path: Path, arguments: list[str], *, trust: bool = False) -> None:
    """Run a Python file as ``python FILE ...`` would, with the plugin imported.

    The current folder stays importable, for a project's own ``custom_imports``; so
    is the folder above ``tools/``, since tools of MMDetection import one another.
    Tools of this package import it themselves, once they have parsed their arguments.

    Args:
        path: The file.
        arguments: What follows it on the command line.
        trust: Whether files that the tool reads may run code.
    """
    sys.argv = [str(path), *arguments]
    folders = path.resolve().parents
    above = [folder.parent for folder in folders if folder.name == 'tools'][:1]
    sys.path[:0] = map(str, [folders[0], *above])
    if folders[0] == tool_folders()[0] / 'tools' and not trust:
        runpy.run_path(str(path), run_name='__main__')
        return
    from mmdet_rfdetr.checkpoints import trust_checkpoint
    from mmdet_rfdetr.command_line.running import explained_errors
    from mmdet_rfdetr.compat.operators import stand_in_for_compiled_ops

    of_mmdet = _package_folder('mmdet') in folders
    stand_in = stand_in_for_compiled_ops if of_mmdet else nullcontext
    trusted = trust_checkpoint if trust else nullcontext
    with trusted(), explained_errors(), stand_in():
        runpy.run_path(str(path), run_name='__main__')


def describe_device() -> str:
    """Name the device that would be used and say what bfloat16 means on it."""
    import torch

    from mmdet_rfdetr.precision import policy

    if not torch.cuda.is_available():
        return 'cpu: float32, or bfloat16 with model.precision.device_type=cpu'
    device = torch.device('cuda', torch.cuda.current_device())
    native = policy.has_native_bfloat16(device)
    return f'{torch.cuda.get_device_name(device)}: ' + (
        'native bfloat16' if native else 'no native bfloat16, use float16 or float32'
    )


def environment() -> str:
    """Describe the installation: versions, device, and the active compat fixes."""
    import mmdet_rfdetr

    # isort: split
    import torch

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


def main(name: str = 'python -m mmdet_rfdetr') -> None:
    """Parse the command line.

    Args:
        name: of the command, for its help.
    """
    parser = argparse.ArgumentParser(
        prog=name,
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
        known = {path.name for path in all_tools()}
        close = difflib.get_close_matches(Path(args.tool).name, known, n=1)
        hint = f'did you mean {close[0]}?' if close else f'(looked from {Path.cwd()})'
        parser.error(f'there is no tool {args.tool!r} {hint}')
    if path.suffix != '.py':
        parser.error(f'{path} is no Python file: run it in a shell')
    run_tool(path, args.arguments, trust=args.trust_checkpoint)
