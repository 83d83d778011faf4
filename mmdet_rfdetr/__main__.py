"""``python -m mmdet_rfdetr``: run a tool with this package imported, or look around."""

import importlib
import importlib.util

COMMANDS = 'mmdet_rfdetr.command_line'

if __name__ == '__main__':
    if importlib.util.find_spec(COMMANDS) is None:
        raise SystemExit(
            f'error: this installation has no command line ({COMMANDS} is not there): '
            'use the package from Python, or install it whole.'
        )
    importlib.import_module(f'{COMMANDS}.main').main()
