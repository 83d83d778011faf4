"""List the official weights, and download those that are asked for."""

import sys
from pathlib import Path
from types import ModuleType

try:
    import rfdetr_arguments as cli
except ModuleNotFoundError:  # this file is a copy, or Python does not look beside it
    from mmdet_rfdetr.command_line import arguments as cli

EXAMPLES = """\
  python tools/weights.py get nano
  python tools/weights.py get nano small --dir checkpoints
  python tools/weights.py

Without --dir they go to $RFDETR_WEIGHTS, or else to mmdet_rfdetr in the cache folder of
the user ($XDG_CACHE_HOME, ~/.cache), where load_from='rfdetr://nano' finds them.
Nothing else downloads them. A proxy is taken from https_proxy.
"""
EXIT_INTERRUPTED = 75  # as of the other tools


def main() -> None:
    """Parse the arguments, and list or download."""
    parser = cli.tool_parser(__doc__, EXAMPLES)
    commands = parser.add_subparsers(title='commands', dest='command')
    commands.add_parser('list', help='which there are (without a command as well)')
    get = commands.add_parser('get', help='download')
    get.add_argument('names', metavar='NAME', nargs='+', help='as in the list: nano')
    get.add_argument('--dir', metavar='DIR', type=Path, help='folder for the files')
    get.add_argument(
        '--url',
        metavar='URL',
        help='where to get the file instead, for example from a mirror, which may be '
        'one by http; it has to have the same hash',
    )
    args = parser.parse_args()
    weights = cli.light_part('official_weights')
    if args.command != 'get':
        print(describe(weights))
        return
    if args.url is not None and len(args.names) > 1:
        parser.error('--url is the address of one file')
    try:
        entries = [weights.find_entry(name) for name in args.names]
    except FileNotFoundError as error:
        parser.error(str(error))
    downloading = cli.light_part('downloading')
    try:
        for entry in entries:
            if entry.note:
                print(f'{entry.name}: {entry.note}')
            path = entry.path(args.dir).absolute()
            is_new = downloading.fetch(args.url or entry.url, path, entry.md5)
            done = 'downloaded' if is_new else 'is there already'
            name = f'{path}' if args.dir else f'{weights.SCHEME}{entry.name}'
            print(f'{path} {done}, its MD5 is right (load_from={name!r}).')
    except downloading.DownloadError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        print('Interrupted: the same command goes on from here.', file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def describe(weights: ModuleType) -> str:
    """A table of all official files.

    Args:
        weights: ``official_weights.py`` of the package.
    """
    rows, notes = [('name', 'config', 'file', 'licence', 'size', 'MD5')], []
    for entry in weights.read_table():
        path = entry.path()
        is_here = path.is_file()
        size = path.stat().st_size if is_here else entry.size
        rows.append(
            (
                entry.name + '*' * is_here,
                ', '.join(entry.configs) or 'none',
                entry.file,
                entry.licence or 'unknown',
                f'{size / 1e6:.0f} MB' if size else 'unknown',
                entry.md5,
            )
        )
        notes += [f'{entry.name}: {entry.note}'] * bool(entry.note)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return '\n'.join([*lines, '', *notes, f'*: in {weights.default_folder()}'])


if __name__ == '__main__':
    main()
