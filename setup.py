"""Packaging of mmdet_rfdetr."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.+)'", (ROOT / 'mmdet_rfdetr' / '__init__.py').read_text()
).group(1)
TRACK = ['trackers>=2.6,<3', 'lap>=0.5,<0.6']  # lap: MMDetection's ByteTrack
ONNX = ['onnx>=1.20,<2', 'onnxscript>=0.7,<0.8', 'onnxruntime>=1.24,<2']
OPENVINO = ['openvino>=2026.0']

setup(
    name='mmdet_rfdetr',
    version=VERSION,
    description='RF-DETR for MMDetection 3.x',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=[
        *find_packages(include=['mmdet_rfdetr', 'mmdet_rfdetr.*']),
        'mmdet_rfdetr.configs',
        'mmdet_rfdetr.configs._base_',
        'mmdet_rfdetr.tools',
        'rfdetr_runtime',
        'rfdetr_predict',
        'rfdetr_datasets',
        'rfdetr_convert',
        'rfdetr_report',
        'rfdetr_family',
    ],
    py_modules=['mmdet_rfdetr_command'],
    entry_points={
        'console_scripts': ['mmdet-rfdetr=mmdet_rfdetr_command:main'],
    },
    # Both stay at the top of the repository, where MMDetection's users look for them,
    # and travel inside the package.
    package_dir={
        'mmdet_rfdetr.configs': 'configs',
        'mmdet_rfdetr.tools': 'tools',
        # Also a distribution of its own, which brings no PyTorch: pip install ./runtime
        'rfdetr_runtime': 'runtime/rfdetr_runtime',
        'rfdetr_predict': 'runtime/rfdetr_predict',
        'rfdetr_datasets': 'runtime/rfdetr_datasets',
        'rfdetr_convert': 'runtime/rfdetr_convert',
        'rfdetr_report': 'runtime/rfdetr_report',
        'rfdetr_family': 'runtime/rfdetr_family',
    },
    package_data={
        'mmdet_rfdetr.tools': ['*.sh'],
        'rfdetr_report': ['page.html'],
        'mmdet_rfdetr.command_line': ['*.json', '*.txt'],
    },
    install_requires=[
        'torch>=2.4',
        'mmengine>=0.10.7,<0.11',
        'mmdet>=3.3.0,<3.4',
        'numpy>=1.26,<2.5',
        'scipy',
        'matplotlib',
        'opencv-python',
        'pillow',
        'pyyaml',
        'pycocotools',
        'jinja2',
        'safetensors',
        # mmengine imports distutils, which Python 3.12 and newer take from here.
        'setuptools',
    ],
    extras_require={
        # Export and the runtimes of exported files, see docs/deployment.md.
        'onnx': ONNX,
        'openvino': [*ONNX, *OPENVINO],
        'int8': [*ONNX, *OPENVINO, 'nncf>=3.4,<4'],
        # One of the first two: they are one module, compiled or not.
        'lite': ['mmcv-lite>=2.1.0,<2.2.0'],
        'full': ['mmcv>=2.1.0,<2.2.0'],
        'tests': [
            'pytest>=8',
            'pytest-xdist>=3.6,<4',
            'packaging',
            'ultrafast-pycocotools>=0.1.14,<0.2',
            'lvis>=0.5.3,<0.6',
            'lmdb>=1.4,<4',
            *ONNX,
            *OPENVINO,
            *TRACK,
        ],
        # Ids of objects over time, see docs/predict.md.
        'track': TRACK,
        # Evaluates with the same numbers in a fraction of the time.
        'fast': ['ultrafast-pycocotools>=0.1.14,<0.2'],
        # Adapters on the encoder, see docs/training.md.
        'lora': ['peft'],
        # Matches on a GPU, see docs/performance.md.
        'gpu': ['torch-linear-assignment>=0.1.0,<0.2'],
        # The original, which some tests compare with when it is there.
        'official': ['rfdetr==1.11.2'],
        'tools': ['ruff', 'pre-commit'],
    },
)
