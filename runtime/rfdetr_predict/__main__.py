"""``python -m rfdetr_predict MODEL SOURCE...``: detect in pictures and videos."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rfdetr_runtime.errors import ModelFileError, SourceError

KINDS = ('json', 'coco', 'yolo', 'csv', 'pictures', 'video', 'crops')
EXAMPLES = """\
examples:
  {example}
  {prog} rfdetr_nano.onnx street.jpg --save json pictures
  {prog} rfdetr_nano.onnx 'pictures/**/*.jpg' --save coco csv --threshold 0.05
  {prog} rfdetr_nano.onnx drive.mp4 --track --save json video
  {prog} rfdetr_nano.onnx 0 --stdout
  {prog} rfdetr_nano.onnx aerial/ --tile 640 --overlap 0.2 --whole

SOURCE is a picture, a video, a folder with all below it, a glob, a .txt file with one
source a line, a COCO .json file, the number of a camera or the address of a stream.
{more}Exit codes: 0; 1 if nothing could be done; 2 for a wrong command line; 75 after
Ctrl-C or SIGTERM. What was written until then is whole.
"""
EXIT_INTERRUPTED = 75


def build_parser(
    prog: str = 'python -m rfdetr_predict',
    model: str = 'exported file: .onnx, .xml (OpenVINO), .pt2 or .engine',
    example: str = 'python -m rfdetr_predict rfdetr_nano.onnx pictures/ --save coco',
    more: str = '',
) -> argparse.ArgumentParser:
    """Make the parser.

    Args:
        prog: how the command is started.
        model: help of MODEL.
        example: the first one.
        more: for the end of the help.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Detect objects in pictures, videos, cameras and streams.',
        epilog=EXAMPLES.format(prog=prog, example=example, more=more),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('model', metavar='MODEL', help=model)
    add('sources', metavar='SOURCE', nargs='+', help='see below')
    add('--out', metavar='DIR', default='predictions', help='folder of the results')
    add(
        '--save',
        nargs='*',
        choices=KINDS,
        metavar='KIND',
        help=f'what to write, of {", ".join(KINDS)} (default: json; with --stdout '
        'nothing)',
    )
    add('--stdout', action='store_true', help='JSON lines on standard output')
    add('--threshold', type=float, default=0.5, help='least score (default: 0.5)')
    add('--classes', nargs='+', metavar='NAME', help='keep these, names or numbers')
    add('--max-dets', type=int, metavar='N', help='at most so many of a picture')
    add('--batch', type=int, default=1, metavar='N', help='computed at once')
    add('--device', help='cpu or cuda; with OpenVINO also GPU')
    add('--shape', type=int, nargs=2, metavar=('H', 'W'), help='size of the input')
    add(
        '--resize',
        choices=('evaluation', 'official'),
        default='evaluation',
        help='filtered, as evaluation does it, or sampled, as predict() of the '
        'official package does it',
    )
    add('--tile', type=int, metavar='SIDE', help='look at tiles of so many pixels')
    add('--overlap', type=float, default=0.2, help='part of a tile (default: 0.2)')
    add('--whole', action='store_true', help='look at the whole picture besides')
    add('--track', action='store_true', help='give the objects of a video ids')
    add('--root', metavar='DIR', help='folder of the pictures of lists and COCO files')
    add('--quiet', action='store_true', help='no progress and no summary')
    return parser


def main(
    arguments: Sequence[str] | None = None,
    parser: argparse.ArgumentParser | None = None,
    open_model: Callable | None = None,
) -> int:
    """Run the command.

    Args:
        arguments: of the command line.
        parser: of :func:`build_parser`, with other options besides.
        open_model: called with the arguments, which it may change, and gives a model
            for :class:`~rfdetr_runtime.detector.Detector`, or None for a file.

    Returns:
        The exit code.
    """
    parser = parser or build_parser()
    args = parser.parse_args(arguments)
    stop = threading.Event()

    def ask_to_stop(*_: object) -> None:
        if stop.is_set():  # asked twice
            raise KeyboardInterrupt
        stop.set()

    signals = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(each, ask_to_stop) for each in signals]
    try:
        return _run(args, open_model, stop)
    except (ModelFileError, SourceError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of standard output has left
        sys.stderr.close()
        return 1
    except OSError as error:  # of what is written
        print(f'error: the results cannot be written: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def _run(
    args: argparse.Namespace, open_model: Callable | None, stop: threading.Event
) -> int:
    from rfdetr_runtime.background import Behind
    from rfdetr_runtime.detector import Detector, ExportedModel

    from .outputs import Outputs
    from .progress import Progress
    from .sources import Sources
    from .tracking import LOW_SCORE, track

    model = open_model(args) if open_model else None
    sources = Sources(args.sources, args.root)
    if model is None:
        options = dict(resize=args.resize, shape=args.shape)
        model = ExportedModel(args.model, device=args.device or 'cpu', **options)
    threshold = min(args.threshold, LOW_SCORE) if args.track else args.threshold
    detector = Detector(
        model,
        threshold=threshold,
        classes=args.classes,
        max_dets=args.max_dets,
        batch=args.batch,
        tile=args.tile,
        overlap=args.overlap,
        whole=args.whole,
    )
    kinds = args.save if args.save is not None else ([] if args.stdout else ['json'])
    folder, stream = Path(args.out), sys.stdout if args.stdout else None
    outputs = Outputs(kinds, folder, detector.names, sources.category_ids, stream)
    progress = Progress(sources.count(), args.quiet)
    started, objects, broken = time.monotonic(), 0, []
    results = detector.stream(sources, stop)
    if args.track:
        results = track(results, args.threshold)
    writing = Behind(outputs.write, 4)
    try:
        for picture, found in results:
            writing.put(picture, found)
            if found is None:
                broken.append(picture.error)
            else:
                objects += len(found)
                progress.step()
    finally:
        try:
            results.close()
            writing.finish()
        finally:
            outputs.close()
    if stop.is_set():
        print('\nInterrupted: what was written is whole.', file=sys.stderr)
    if not args.quiet:
        seconds = time.monotonic() - started
        where = f'; results in {folder}' if kinds else ''
        print(
            f'{progress.done} pictures, {objects} objects, {seconds:.1f} s{where}',
            file=sys.stderr,
        )
    for error in broken[:10]:
        print(f'left out: {error}', file=sys.stderr)
    if len(broken) > 10:
        print(f'left out: {len(broken) - 10} more', file=sys.stderr)
    return EXIT_INTERRUPTED if stop.is_set() else int(progress.done == 0)


if __name__ == '__main__':
    sys.exit(main())
