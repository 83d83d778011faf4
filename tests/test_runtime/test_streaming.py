"""Sources of any length: bounded memory, threads that overlap, whole files."""

import gc
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cv2
import numpy as np
import pytest
from rfdetr_predict.progress import Progress
from rfdetr_runtime import Detector, Picture
from rfdetr_runtime.background import Behind, ahead

from tests.fixtures import REPOSITORY
from tests.interpreter import run_code
from tests.test_runtime.squares import Squares, draw, write_video

SIZE = (30, 40)


def frames(count):
    for number in range(count):
        image = draw(SIZE, ('red', number % 20, 3, number % 20 + 15, 20))
        yield Picture(image, 'made', number, None, number, number / 25, 25.0)


@pytest.mark.parametrize(('batch', 'tile'), [(1, None), (4, None), (3, 25)])
def test_few_pictures_are_alive_at_once(batch, tile):
    most, count = 0, 0
    detect = Detector(Squares(), threshold=0.1, batch=batch, tile=tile)
    for number, (picture, found) in enumerate(detect.stream(frames(200))):
        assert picture.image_id == number and len(found) == 1
        if number % 20 == 0:
            alive = sum(isinstance(each, Picture) for each in gc.get_objects())
            most, count = max(most, alive), count + 1
    assert count == 10 and most <= 3 * batch + 4


def test_pictures_without_an_end_are_detected_one_by_one():
    stream = Detector(Squares(), threshold=0.1).stream(frames(10**9))
    assert [next(stream)[0].frame for _ in range(5)] == list(range(5))
    stream.close()
    time.sleep(0.3)
    assert not any('(read)' in thread.name for thread in threading.enumerate())


def test_reading_detecting_and_writing_have_threads_of_their_own(tmp_path):
    seen = dict(read=set(), prepare=set(), detect=set(), write=set())

    class Watched(Squares):
        def prepare(self, image):
            seen['prepare'].add(threading.get_ident())
            return super().prepare(image)

        def detect(self, *args):
            seen['detect'].add(threading.get_ident())
            return super().detect(*args)

    def read():
        for picture in frames(20):
            seen['read'].add(threading.get_ident())
            yield picture

    writing = Behind(lambda *item: seen['write'].add(threading.get_ident()), 4)
    for item in Detector(Watched(), threshold=0.1).stream(read()):
        writing.put(*item)
    writing.finish()
    assert seen['read'] == seen['prepare']
    assert seen['detect'] == {threading.get_ident()}
    (reader,), (writer,) = seen['read'], seen['write']
    assert len({reader, writer, threading.get_ident()}) == 3


def test_order_is_kept_around_pictures_that_cannot_be_read():
    def mixed():
        for number, picture in enumerate(frames(9)):
            yield Picture(None, 'x', number, 'broken') if number % 3 == 1 else picture

    detect = Detector(Squares(), threshold=0.1, batch=4)
    results = list(detect.stream(mixed()))
    assert [picture.image_id for picture, _ in results] == list(range(9))
    assert [found is None for _, found in results] == [False, True, False] * 3
    assert detect.model.batches == [4, 2]


def test_an_error_while_reading_or_writing_is_raised():
    def broken():
        yield from frames(3)
        raise OSError('the disk is gone')

    with pytest.raises(OSError, match='the disk is gone'):
        list(Detector(Squares()).stream(broken()))

    def write(number):
        raise OSError(f'the disk is full at {number}')

    writing = Behind(write, 2)
    with pytest.raises(OSError, match='full at 0'):
        for number in range(10**6):
            writing.put(number)
    with pytest.raises(OSError, match='full at 0'):
        writing.finish()


def test_no_more_is_read_ahead_than_was_asked_for():
    read = []

    def numbers():
        for number in range(100):
            read.append(number)
            yield number

    with ahead(numbers(), 3) as items:
        assert next(items) == 0
        time.sleep(0.2)
        assert len(read) <= 5


def test_progress_says_when_it_ends(capsys):
    progress = Progress(total=200)
    progress.done = 50
    assert progress.line(10) == '50 of 200 pictures, 5.0 a second, 0:30 left'
    progress.done = 210  # of a video whose header tells less
    assert progress.line(10) == '210 of 210 pictures, 21.0 a second, 0:00 left'
    unending = Progress(total=None)
    unending.done = 30
    assert unending.line(10) == '30 pictures, 3.0 a second'


COMMAND = """
import sys, time
sys.path[:0] = [{root!r}, {runtime!r}]
from rfdetr_predict.__main__ import main
from tests.test_runtime.squares import Squares

class Slow(Squares):
    def detect(self, *args):
        time.sleep(0.01)
        return super().detect(*args)

sys.exit(main(sys.argv[1:], open_model=lambda args: Slow()))
"""


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_interrupting_leaves_whole_files(tmp_path, sent):
    pictures = [draw(SIZE, ('red', 3, 3, 20, 20)) for _ in range(3000)]
    video = write_video(tmp_path / 'long.avi', pictures)
    out = tmp_path / 'out'
    code = COMMAND.format(root=str(REPOSITORY), runtime=str(REPOSITORY / 'runtime'))
    options = ['--save', 'json', 'coco', 'csv', 'video', '--threshold', '0.1']
    process = subprocess.Popen(
        [sys.executable, '-c', code, 'x', video, '--out', out, *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = out / 'detections.jsonl'
    while not (lines.exists() and lines.read_text().count('\n') > 20):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert 'Interrupted: what was written is whole.' in said
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert 20 < len(rows) < 3000
    assert [row['frame'] for row in rows] == list(range(len(rows)))
    results = json.loads((out / 'coco.json').read_text())
    images = json.loads((out / 'coco_images.json').read_text())['images']
    assert len(results) == len(images) == len(rows)
    assert (out / 'detections.csv').read_text().count('\n') == len(rows) + 1
    written = cv2.VideoCapture(str(out / 'videos' / 'long.mp4'))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == len(rows)


def test_interrupting_a_folder_leaves_whole_files(tmp_path):
    """Also the lines on standard output, and one file a picture."""
    folder, out = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    picture = cv2.imencode('.png', draw(SIZE, ('red', 3, 3, 20, 20)))[1].tobytes()
    for number in range(600):
        (folder / f'{number:04d}.png').write_bytes(picture)
    code = COMMAND.format(root=str(REPOSITORY), runtime=str(REPOSITORY / 'runtime'))
    kinds = ['--save', 'yolo', 'pictures', 'crops', '--threshold', '0.1', '--stdout']
    process = subprocess.Popen(
        [sys.executable, '-c', code, 'x', folder, '--out', out, *kinds],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    rows = [json.loads(line) for line in [*first, *rest.splitlines()]]
    assert 20 <= len(rows) < 600
    names = [f'{number:04d}' for number in range(len(rows))]
    assert [row['image'] for row in rows] == [f'{name}.png' for name in names]
    labels = sorted((out / 'labels').iterdir())
    assert [path.stem for path in labels] == names
    assert all(path.read_text().count('\n') == 1 for path in labels)
    for kind, count in (('pictures', len(rows)), ('crops/red', len(rows))):
        written = sorted((out / kind).iterdir())
        assert len(written) == count
        assert all(cv2.imread(str(path)) is not None for path in written)


def test_a_reader_of_standard_output_may_leave(tmp_path):
    for number in range(50):
        np.save(tmp_path / f'{number}.npy', 0)
    video = write_video(tmp_path / 'a.avi', [draw(SIZE)] * 400)
    code = COMMAND.format(root=str(REPOSITORY), runtime=str(REPOSITORY / 'runtime'))
    script = tmp_path / 'command.py'
    script.write_text(code)
    done = subprocess.run(
        f'{sys.executable} {script} x {video} --stdout --quiet | head -n 2',
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count('\n') == 2
    assert done.stderr == ''


def test_neither_pytorch_nor_mmdetection_is_imported(tmp_path):
    """Also while it detects, with a model that needs neither."""
    cv2.imwrite(str(tmp_path / 'a.png'), draw(SIZE, ('red', 3, 3, 20, 20)))
    code = """
        import sys
        from rfdetr_predict.__main__ import main
        from tests.test_runtime.squares import Squares
        options = ['--out', sys.argv[1], '--save', 'json', 'coco', 'pictures', 'crops']
        options += ['yolo', 'csv', 'video', '--tile', '20', '--threshold', '0.1']
        arguments = ['x', sys.argv[1], *options]
        assert main(arguments, open_model=lambda args: Squares()) == 0
        heavy = {'torch', 'mmdet', 'mmengine', 'mmcv', 'mmdet_rfdetr', 'scipy'}
        print({name.partition('.')[0] for name in sys.modules} & heavy)
    """
    # The folder tests has nothing in its __init__.py.
    done = run_code(textwrap.dedent(code), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'set()'
