"""CPU time of our deployment file over another file of the same model, in turns.

``python -m tests.test_deploy.measure OURS.onnx OFFICIAL.onnx [--rounds 11]``: the
official file is what ``RFDETRNano(...).export()`` of the package rfdetr writes. Both
run on one picture of noise in ONNX Runtime and in OpenVINO, on one thread.
"""

import argparse
import time

import numpy as np

from tests.test_deploy.exported import in_onnxruntime, in_openvino


def ratio(ours, official, image, rounds):
    """Median over the rounds of CPU seconds of one file over those of the other."""
    calls = ours, official
    for call in calls:
        call(image)
    ratios = []
    for index in range(rounds):
        # Whoever comes second finds the caches of the first: they swap places.
        order = (0, 1) if index % 2 else (1, 0)
        spent = [0.0, 0.0]
        for which in order:
            began = time.process_time()
            for _ in range(3):
                calls[which](image)
            spent[which] = time.process_time() - began
        ratios.append(spent[0] / spent[1])
    return float(np.median(ratios)), min(ratios), max(ratios)


def main():
    """Print a line for each runtime."""
    import onnxruntime
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ours')
    parser.add_argument('official')
    parser.add_argument('--rounds', type=int, default=11)
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.official)
    shape = [
        side if isinstance(side, int) else 1 for side in session.get_inputs()[0].shape
    ]
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for name, open_file in (
        ('ONNX Runtime', in_onnxruntime),
        ('OpenVINO', in_openvino),
    ):
        files = map(open_file, (arguments.ours, arguments.official))
        median, low, high = ratio(*files, image, arguments.rounds)
        print(
            f'{name}: {median:.3f} ({low:.3f} to {high:.3f}), {arguments.rounds} rounds'
        )


if __name__ == '__main__':
    main()
