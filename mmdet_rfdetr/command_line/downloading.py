"""Downloading a file because somebody asked for it: resumed, checked, whole or not.

Tools read this file without the package, which imports PyTorch: it needs nothing beyond
Python's own library.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

_BLOCK = 2**18  # bytes
_TIMEOUT = 30  # seconds without a byte
_SECONDS = 0.5, 10.0  # between two lines on a terminal, and elsewhere
_NOTHING_LEFT = 416  # the answer to a range that begins at the end of a file


class DownloadError(OSError):
    """What went wrong and what to do next, in one sentence."""


class BrokenOffError(DownloadError):
    """The connection ended before the file did; what came is kept."""


class _Redirects(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith(('https:', f'{req.type}:')):
            fp.close()
            raise DownloadError(f'{req.full_url} leads to {newurl}, and not by https.')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def md5_of(file: BinaryIO) -> Any:
    """The hash of what is left to read of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest


def fetch(url: str, path: Path, md5: str) -> bool:
    """Download a file, or what is missing of it.

    Until it is whole and its hash is right it is ``<name>.part`` beside its place.

    Args:
        url: its address, ``https:`` or, for a mirror, ``http:``.
        path: where it will lie; folders are made.
        md5: hash that it has to have.

    Returns:
        Whether it was downloaded; False if it was there.

    Raises:
        DownloadError: it could not be downloaded; nothing lies in its place then.
    """
    part = path.with_name(f'{path.name}.part')
    if not url.startswith(('https://', 'http://')):
        raise DownloadError(f'{url} is no address of the web: begin it with https://')
    with _explained(url, path):
        if path.exists():
            with path.open('rb') as file:
                _require(md5_of(file).hexdigest(), md5, path, 'move it away')
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        found = None
        try:
            with part.open('a+b') as file:
                found = _complete(url, file)
            _require(found, md5, url, 'it was removed, get it again')
            part.replace(path)
        finally:
            if part.exists() and (found is not None or not part.stat().st_size):
                part.unlink()  # wrong, or nothing
    return True


def _require(found: str, md5: str, what: Path | str, remedy: str) -> None:
    if found != md5:
        raise DownloadError(
            f'{what} is not the published file, or damaged: its MD5 is {found} and '
            f'should be {md5}: {remedy}.'
        )


def _complete(url: str, file: BinaryIO) -> str:
    """Append what is missing of a file, and return the hash of all of it."""
    opener = build_opener(_Redirects)
    file.seek(0)
    digest = md5_of(file)
    while True:
        start = file.tell()
        # A packed answer would have other bytes, and a range of these.
        headers = {'Accept-Encoding': 'identity', 'User-Agent': 'mmdet_rfdetr'}
        if start:
            headers['Range'] = f'bytes={start}-'
        try:
            with opener.open(Request(url, headers=headers), timeout=_TIMEOUT) as answer:
                given = answer.headers.get('Content-Range', '')
                if start and not given.startswith(f'bytes {start}-'):
                    file.seek(0)  # it begins at the beginning
                    file.truncate()
                    digest = md5_of(file)
                for block in _blocks(answer, file.tell()):
                    file.write(block)
                    digest.update(block)
        except BrokenOffError:
            if file.tell() <= start:
                raise
        except HTTPError as error:
            if not start or error.code != _NOTHING_LEFT:
                raise
            error.close()
            break
        else:
            break
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def _blocks(answer: HTTPResponse, done: int) -> Iterator[bytes]:
    """What comes, with progress on standard error; ``done`` bytes came before."""
    length = answer.headers.get('Content-Length', '')
    total = done + int(length) if length.isdecimal() else None
    first, start = done, time.monotonic()
    said, on_terminal = start, sys.stderr.isatty()
    reason = 'the server closed it'
    while total is None or done < total:
        try:
            block = answer.read(_BLOCK)
        except (OSError, HTTPException) as error:
            block, reason = b'', str(error) or type(error).__name__
            total = total or done + 1
        if not block:
            break
        yield block
        done += len(block)
        now = time.monotonic()
        if now - said >= _SECONDS[not on_terminal]:
            said, rate = now, (done - first) / (now - start)
            end = '\r' if on_terminal else '\n'
            print(f'{_progress(done, total, rate):<60}', end=end, file=sys.stderr)
    if on_terminal:
        print(' ' * 60, end='\r', file=sys.stderr)
    if total is not None and done < total:
        raise BrokenOffError(
            f'The connection to {answer.url} broke off after {done} bytes ({reason}): '
            'give the same command again, it goes on from there.'
        )


def _progress(done: int, total: int | None, rate: float) -> str:
    """How far it has come at so many bytes a second."""
    speed = f'{rate / 1e6:.1f} MB/s'
    if total is None:
        return f'{done / 1e6:.1f} MB, {speed}'
    minutes, seconds = divmod(round((total - done) / rate), 60)
    of = f'{done / 1e6:.1f} of {total / 1e6:.1f} MB'
    return f'{of}, {speed}, {minutes}:{seconds:02d} left'


@contextmanager
def _explained(url: str, path: Path) -> Iterator[None]:
    """Say in one sentence what went wrong, on the way or on this disk."""
    by_hand = f'or get the file elsewhere and put it at {path}'
    try:
        yield
    except DownloadError:
        raise
    except HTTPError as error:
        error.close()
        raise DownloadError(
            f'{url} answers {error.code} ({error.reason}): try again later, {by_hand}.'
        ) from error
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, 'reason', None) or str(error) or type(error).__name__
        raise DownloadError(
            f'{url} cannot be reached ({reason}): see whether this machine has a '
            f'network, set https_proxy if it needs one, {by_hand}.'
        ) from error
    except OSError as error:
        raise DownloadError(
            f'{path} cannot be written ({error.strerror}): make room, or choose '
            'another folder by --dir; the same command goes on with what has come.'
        ) from error
