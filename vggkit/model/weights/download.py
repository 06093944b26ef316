"""Fetching a published checkpoint: resumed where it stopped, checked before it gets its name.

torch.hub.download_url_to_file and pooch start over after an interruption, never leave a server that sends slowly or
without end, and let two processes fetch the same file; filelock, which torch needs, leaves its lock file behind.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, responses
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Any
from urllib import request
from urllib.error import HTTPError, URLError

from vggkit.base.errors import VggkitError
from vggkit.base.numbers import grouped

if TYPE_CHECKING:
    from vggkit.model.weights.published import Checksum, Passport

TIMEOUT = 30
"""After this many silent seconds a server is given up."""
WINDOW = 30
LEAST_BYTES = 2**15
"""A server that sends fewer bytes than this in WINDOW seconds is given up, too: it may never end."""
ATTEMPTS = 3
MARGIN = 2**20
"""Bytes by which a file may exceed its published size before its download is given up."""
MAX_BYTES = 2**31
"""Bytes after which a download of unknown size is given up."""

_CHUNK = 2**18

Progress = Callable[[int, int | None], None]
"""Shows how many bytes there are, of how many."""


def fetch(passport: Passport, folder: Path | None = None) -> Path:
    """Return the path of a published checkpoint, after downloading it if it is not there yet.

    A download that stops half-way stays as FILE.part and goes on from there the next time. FILE itself appears only
    when it is whole and its checksum, if one is published, is right.

    Args:
        passport: what to fetch.
        folder: where to keep it; None is the cache of torch.hub, which torchvision uses too.

    Returns:
        The path of the file.

    Raises:
        VggkitError: if it can't be fetched or kept, or is not what was published.
    """
    place = _hub_folder() if folder is None else Path(folder)
    target = place / passport.file
    try:
        if target.exists():
            return _checked_size(target, passport)
        download = _Download(passport, target)
        place.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.lock")):
            if not target.exists():  # whoever held the lock before may have fetched it
                download.run()
        return _checked_size(target, passport)
    except OSError as error:
        raise VggkitError(
            f"{place}: {passport.file} can't be kept there: {_reason(error)}; "
            "put that right or choose another folder (the environment variable TORCH_HOME moves the cache)"
        ) from None


def _hub_folder() -> Path:
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints"


def _checked_size(target: Path, passport: Passport) -> Path:
    """Return a file that is there, unless its size shows that it is something else."""
    if not target.is_file():
        raise VggkitError(f"{target}: expected a file, found a folder; remove it and run this again")
    size = target.stat().st_size
    if passport.bytes not in (None, size):
        raise VggkitError(
            f"{target}: found {grouped(size)} bytes, expected {grouped(passport.bytes or 0)}; "
            "delete it and run this again"
        )
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time download a file; the others wait and find it done.

    The operating system holds the lock, so a process that is killed never leaves it behind. The file is removed while
    it is locked, hence a process that waited for a removed one must open the new one.
    """
    while True:
        with open(path, "ab", opener=_own) as file:
            _wait_for(file)
            try:
                is_still_there = os.path.samestat(os.stat(path), os.fstat(file.fileno()))
            except FileNotFoundError:
                is_still_there = False
            if not is_still_there:
                continue
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no open file; an empty one that stays does no harm
                    path.unlink()
            return


def _own(path: str, flags: int) -> int:
    """Open a file itself: follow no link, wait for no reader of a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def _wait_for(file: IO[bytes]) -> None:
    """Lock a file. Without locks in the file system go on: a spoilt download does not pass the check."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            except OSError as error:
                if error.errno == errno.EDEADLK:  # ten seconds have passed
                    continue
            return
    else:
        import fcntl

        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


class _Download:
    """One file on its way.

    Args:
        passport: what to fetch.
        target: where it goes.
    """

    def __init__(self, passport: Passport, target: Path) -> None:
        self.passport = passport
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.address = self.checked_address()
        expected = passport.expected_bytes
        self.limit = MAX_BYTES if expected is None else expected + MARGIN

    def checked_address(self) -> str:
        address = self.passport.address
        if address is None:
            raise VggkitError(
                f"{self.passport.file}: no address is known to fetch it from; "
                f"find it elsewhere and put it at {self.target}"
            )
        if not address.lower().startswith(("http://", "https://")):
            raise VggkitError(f"{self.passport.file}: expected an address of http or https, found {address}")
        return address

    def run(self) -> None:
        if self.part.is_symlink():  # somebody else's: the file that it leads to is not ours to write
            self.part.unlink()
        if not self.was_complete():
            with _progress(self.passport.file) as progress:
                self.receive(progress)
            self.check()
        os.replace(self.part, self.target)

    def was_complete(self) -> bool:
        """Tell whether an earlier run stopped between the last byte and the rename."""
        checksum = self.passport.checksum
        return checksum is not None and self.size() > 0 and self.digits(checksum) == checksum.digits

    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def digits(self, checksum: Checksum) -> str:
        """Return as many digits of the part's own checksum as are known of the published one."""
        digest = hashlib.new(checksum.algorithm, usedforsecurity=False)
        with open(self.part, "rb", opener=_own) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()[: len(checksum.digits)]

    def check(self) -> None:
        """Delete what was fetched, and say so, unless it is what was published."""
        size, expected_size = self.size(), self.passport.bytes
        if expected_size not in (None, size):
            raise self.spoilt(f"of {grouped(size)} bytes", f"{grouped(expected_size or 0)}")
        checksum = self.passport.checksum
        found = None if checksum is None else self.digits(checksum)
        if checksum is not None and found != checksum.digits:
            raise self.spoilt(f"whose {checksum.words} {found}", checksum.digits)

    def receive(self, progress: Progress) -> None:
        """Bring the part to its full length."""
        total: int | None = None
        try:
            for _ in range(ATTEMPTS):
                response, start = self.open(self.size())
                with response:
                    total = _total(response, start) or self.passport.bytes
                    if self.append(response, start, total, progress):
                        return
        except _TooSlow:
            raise VggkitError(
                f"{self.passport.file}: {self.address} sends fewer than {grouped(LEAST_BYTES)} bytes in {WINDOW}"
                f" seconds; {grouped(self.size())} bytes are in {self.part}; run this again to go on from there"
            ) from None
        of = "" if total is None else f" of {grouped(total)}"
        raise VggkitError(
            f"{self.passport.file}: the connection to {self.address} was cut off {ATTEMPTS} times; "
            f"{grouped(self.size())}{of} bytes are in {self.part}; run this again to go on from there"
        )

    def open(self, start: int) -> tuple[HTTPResponse, int]:
        """Ask for the bytes from `start` on; the answer comes with the byte that it does start from."""
        headers = {"User-Agent": "vggkit", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            response: HTTPResponse = _opener().open(request.Request(self.address, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            if start and error.code == 416:
                return self.open(0)
            raise self.unreachable(f"HTTP {error.code} {responses.get(error.code, '')}".strip()) from None
        except (OSError, HTTPException) as error:
            raise self.unreachable(_reason(error)) from None
        if response.status == 200:
            return response, 0
        if start and response.status == 206 and _content_range(response)[0] == start:
            return response, start
        response.close()
        if start:
            return self.open(0)
        raise self.unreachable(f"HTTP {response.status} where 200 was expected")

    def append(self, response: HTTPResponse, start: int, total: int | None, progress: Progress) -> bool:
        """Write an answer to the part; tell whether all of it came."""
        if total is not None and total > self.limit:
            raise self.too_long()
        done = start
        with open(self.part, "ab" if start else "wb", opener=_own) as file:
            while True:
                progress(done, total)
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, HTTPException):
                    return False
                if not chunk:
                    return total is None or done >= total
                done += len(chunk)
                if done > self.limit:
                    break
                file.write(chunk)
        raise self.too_long()

    def unreachable(self, reason: str) -> VggkitError:
        return VggkitError(
            f"{self.passport.file}: can't be fetched: {reason}; "
            f"try again later, or download {self.address} by hand and put it at {self.target}"
        )

    def too_long(self) -> VggkitError:
        return self.spoilt("that goes on", f"at most {grouped(self.limit)} bytes")

    def spoilt(self, found: str, expected: str) -> VggkitError:
        self.part.unlink(missing_ok=True)
        return VggkitError(
            f"{self.passport.file}: {self.address} gave a file {found}, expected {expected}; it was deleted, "
            f"so run this again, or download the file by hand and put it at {self.target}"
        )


class _TooSlow(Exception):  # noqa: N818  # a signal
    """A server sends its answer so slowly that it may never end."""


class _Paced(io.RawIOBase):
    """What a server sends (headers, lengths of chunks, the file); raises _TooSlow where it comes too slowly.

    Args:
        raw: the socket's file.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw = raw
        self.since = monotonic()
        self.received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        number: int | None = self.raw.readinto(buffer)
        self.received += number or 0
        if number and monotonic() - self.since >= WINDOW:
            if self.received < LEAST_BYTES:
                raise _TooSlow
            self.since, self.received = monotonic(), 0
        return number

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Handler(request.HTTPHandler):
    def http_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _SecureHandler(request.HTTPSHandler):
    def https_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req)


def _opener() -> request.OpenerDirector:
    """Return an opener that knows http and https alone, so that no redirection leads to another scheme."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        _Handler(),
        _SecureHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """Return the first byte of a partial answer and the size of the whole file, as far as the answer says."""
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    return int(match.group(1)), None if match.group(2) == "*" else int(match.group(2))


def _total(response: HTTPResponse, start: int) -> int | None:
    """Return the size of the whole file, as far as an answer from byte `start` on says."""
    whole = _content_range(response)[1] if start else None
    if whole is not None or response.length is None:
        return whole
    return start + response.length


def _reason(error: BaseException) -> str:
    """Return what went wrong on the network or on the disk, on one line."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT} seconds"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(text.split())


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show a bar on stderr, where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
