"""What docs/predict.md says about time, memory and files, measured anew.

``python -m tests.test_runtime.measure start MODEL.onnx``: CPU time of importing and of
the first picture, beside that of opening the file.
``... folder MODEL.onnx [--count 200]``: what of the time of a folder of one-megapixel
JPEGs is not the network.
``... memory MODEL.onnx [--count 2000]``: memory over the frames of a video.
``... files PICTURES CONFIG CHECKPOINT FILE...``: detections of files beside those of
the checkpoint.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
START = """
import sys, time
import numpy, cv2
sys.path.insert(0, sys.argv[2])
began = time.process_time()
from rfdetr_runtime import Detector
imported = time.process_time()
detect = Detector(sys.argv[1], threshold=0.5)
opened = time.process_time()
detect(numpy.zeros((800, 1200, 3), numpy.uint8))
done = time.process_time()
# Since the process began: also NumPy and OpenCV.
print(done - (opened - imported), opened - imported, 'torch' in sys.modules)
"""


def start(model, count):
    """CPU seconds of a new process without those of opening the file; and those."""
    rows = []
    for _ in range(count):
        command = [sys.executable, '-c', START, model, str(ROOT / 'runtime')]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(done.stdout.split())
    beyond, opening = np.median(np.array([row[:2] for row in rows], float), axis=0)
    return beyond, opening


def noise(shape, seed=0):
    """A picture that compresses as photographs do."""
    import cv2

    small = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)


def folder(model, count):
    """Seconds of a folder, of the network within them, and CPU seconds of both."""
    import cv2
    from rfdetr_predict.__main__ import main
    from rfdetr_runtime.detector import ExportedModel

    network = np.zeros(2)

    class Timed(ExportedModel):
        def detect(self, *args):
            began = time.perf_counter()
            try:
                return super().detect(*args)
            finally:
                network[:] += time.perf_counter() - began, 1

    with tempfile.TemporaryDirectory() as path:
        data = cv2.imencode('.jpg', noise((800, 1250)))[1].tobytes()
        for number in range(count):
            (Path(path) / f'{number:04d}.jpg').write_bytes(data)
        timed = Timed(model)
        inputs = timed.prepare(noise((800, 1250)))
        timed.detect([inputs], [(800, 1250)], 0.5, None)
        began = time.process_time()
        for _ in range(10):
            timed.detect([inputs], [(800, 1250)], 0.5, None)
        alone = (time.process_time() - began) / 10
        network[:] = 0
        wall, cpu = time.perf_counter(), time.process_time()
        arguments = ['x', path, '--out', f'{path}/out', '--save', 'json', '--quiet']
        main(arguments, open_model=lambda _: timed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert network[1] == count
    return wall, network[0], cpu / count, alone


def memory(model, count):
    """MiB in use after each hundredth frame of a video."""
    import cv2
    from rfdetr_predict.outputs import Outputs
    from rfdetr_predict.sources import Sources
    from rfdetr_runtime import Detector

    page, used = 4096 / 2**20, []
    with tempfile.TemporaryDirectory() as path:
        video = f'{path}/long.avi'
        writer = cv2.VideoWriter(video, cv2.VideoWriter.fourcc(*'MJPG'), 25, (640, 480))
        for number in range(count):
            writer.write(noise((480, 640), number % 50))
        writer.release()
        detect = Detector(model, threshold=0.05)
        kinds = ['json', 'coco', 'csv', 'video']
        outputs = Outputs(kinds, Path(path) / 'out', detect.names, {})
        for number, result in enumerate(detect.stream(Sources([video])), start=1):
            outputs.write(*result)
            if number % 100 == 0:
                pages = int(Path('/proc/self/statm').read_text().split()[1])
                used.append(pages * page)
        outputs.close()
    return used


def files(pictures, config, checkpoint, paths):
    """Of each file: detections, those found alike, and the greatest differences."""
    from rfdetr_predict.sources import Sources
    from rfdetr_runtime import Detector

    from mmdet_rfdetr.runtime import CheckpointModel

    def results(model):
        detect = Detector(model, threshold=0.05)
        return [found for _, found in detect.stream(Sources([pictures]))]

    expected = results(CheckpointModel(config, checkpoint, 'cpu'))
    for path in paths:
        alike, boxes, scores = 0, 0.0, 0.0
        for one, other in zip(expected, results(path), strict=True):
            for box, score, label in zip(
                one.boxes, one.scores, one.labels, strict=True
            ):
                same = np.flatnonzero(other.labels == label)
                apart = np.abs(other.boxes[same] - box).max(axis=1, initial=0)
                apart = np.maximum(apart, 1e3 * np.abs(other.scores[same] - score))
                if len(same) and apart.min() < 0.1:
                    nearest = same[apart.argmin()]
                    alike += 1
                    boxes = max(boxes, np.abs(other.boxes[nearest] - box).max())
                    scores = max(scores, abs(other.scores[nearest] - score))
        yield path, sum(map(len, expected)), alike, boxes, scores


def main():
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', choices=['start', 'folder', 'memory', 'files'])
    parser.add_argument('paths', nargs='+')
    parser.add_argument('--count', type=int)
    args = parser.parse_args()
    if args.what == 'start':
        beyond, opening = start(args.paths[0], args.count or 5)
        print(f'{beyond:.2f} s of CPU, and {opening:.2f} s for opening the file')
    elif args.what == 'folder':
        wall, network, each, alone = folder(args.paths[0], args.count or 200)
        print(
            f'{wall:.1f} s, {1 - network / wall:.1%} of them not in the network; CPU '
            f'of a picture {each:.3f} s, of the network alone {alone:.3f} s'
        )
    elif args.what == 'memory':
        used = memory(args.paths[0], args.count or 2000)
        slope = np.polyfit(np.arange(len(used) // 2), used[-(len(used) // 2) :], 1)[0]
        print(
            ' '.join(f'{each:.1f}' for each in used),
            f'MiB; {slope:+.3f} MiB each hundred frames of the second half',
        )
    else:
        for path, count, alike, boxes, scores in files(
            args.paths[0], args.paths[1], args.paths[2], args.paths[3:]
        ):
            print(f'{path}: {alike} of {count} alike, {boxes:.1e}, {scores:.1e}')


if __name__ == '__main__':
    main()
