"""Downloads are resumed, checked and bounded, and say in one line what went wrong; against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
import torch
from msgspec.structs import replace

from tests.base.test_files import file_size_limit
from tests.model.weights.makers import in_layout, small
from vggkit import build
from vggkit.base.errors import VggkitError
from vggkit.model.weights import download
from vggkit.model.weights.download import fetch
from vggkit.model.weights.published import Passport, imagenet

CONTENT = bytes(range(256)) * 4000
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]
HALF = len(CONTENT) // 2


class Server(ThreadingHTTPServer):
    """Serves CONTENT in the way that `answer` says; `ranges` are the Range headers that it was sent."""

    answer: Callable[[Handler], None]
    ranges: list[str | None]

    def handle_error(self, *_: object) -> None:
        """Keep quiet about clients that leave early."""


class Handler(BaseHTTPRequestHandler):
    """Leaves the answer to the server."""

    server: Server

    def do_GET(self) -> None:
        """Answer."""
        self.server.ranges.append(self.headers["Range"])
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def say(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send an answer; `length` is what it says of itself, negative for nothing."""
        self.send_response(status)
        length = len(body) if length is None else length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def whole(handler: Handler) -> None:
    """Answer as a server that knows no Range."""
    handler.say(200, CONTENT)


def ranged(handler: Handler, cut: int | None = None) -> None:
    """Answer as a server that knows Range; `cut` bytes after the start the connection ends."""
    start = int(handler.headers["Range"][6:-1]) if handler.headers["Range"] else 0
    rest = CONTENT[start:]
    if not rest:
        return handler.say(416, b"", Content_Range=f"bytes */{len(CONTENT)}")
    place = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
    return handler.say(206 if start else 200, rest[:cut], len(rest), **place)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that knows Range, until a test says otherwise."""
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.answer, running.ranges = ranged, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def passport(server: Server) -> Passport:
    """The passport of CONTENT."""
    address = f"http://127.0.0.1:{server.server_port}/x.pth"
    return replace(imagenet("D"), file="x.pth", address=address, mebibytes=len(CONTENT) / 2**20, sha256_prefix=PREFIX)


def refusal(passport: Passport, folder: Path) -> str:
    """Return the one line that a fetch fails with."""
    with pytest.raises(VggkitError) as failure:
        fetch(passport, folder)
    assert "\n" not in str(failure.value)
    assert failure.value.exit_code == 1
    return str(failure.value)


def names(folder: Path) -> list[str]:
    """Return what a folder holds."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_whole_and_nothing_stays_beside_it(
    server: Server, passport: Passport, tmp_path: Path
) -> None:
    """Into a folder that is made if need be, in one request."""
    path = fetch(passport, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "x.pth"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["x.pth"]
    assert server.ranges == [None]


def test_the_folder_is_torch_hubs_cache(passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless another is given, so that torchvision finds the file too."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert fetch(passport) == tmp_path / "checkpoints" / "x.pth"


def test_a_file_that_is_there_is_not_fetched(server: Server, passport: Passport, tmp_path: Path) -> None:
    """Nor is its address looked at."""
    (tmp_path / "x.pth").write_bytes(b"mine")
    assert fetch(replace(passport, address=None), tmp_path).read_bytes() == b"mine"
    assert server.ranges == []


def test_a_file_of_another_size_is_refused(passport: Passport, tmp_path: Path) -> None:
    """With both sizes, and what to do; it is not touched."""
    (tmp_path / "x.pth").write_bytes(b"mine")
    line = refusal(replace(passport, bytes=1_024_000), tmp_path)
    assert line == f"{tmp_path / 'x.pth'}: found 4 bytes, expected 1,024,000; delete it and run this again"
    assert (tmp_path / "x.pth").read_bytes() == b"mine"


def test_a_folder_in_the_files_place_is_refused(server: Server, passport: Passport, tmp_path: Path) -> None:
    """Before anything is fetched."""
    (tmp_path / "x.pth").mkdir()
    assert "expected a file, found a folder" in refusal(passport, tmp_path)
    assert server.ranges == []


def test_a_connection_that_is_cut_off_is_resumed(server: Server, passport: Passport, tmp_path: Path) -> None:
    """From the first byte that is missing, in the same call."""
    server.answer = lambda handler: ranged(handler, None if handler.headers["Range"] else HALF)
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert names(tmp_path) == ["x.pth"]


def test_a_chunked_answer_that_is_cut_off_is_resumed(server: Server, passport: Passport, tmp_path: Path) -> None:
    """Though nothing says how long the file is."""

    def cut(handler: Handler) -> None:
        if handler.headers["Range"]:
            return ranged(handler)
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        return handler.say(200, b"3\r\n" + CONTENT[:3] + b"\r\n", -1, Transfer_Encoding="chunked", Connection="close")

    server.answer = cut
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges[0] is None
    assert len(server.ranges) == 2


def test_after_three_cuts_the_part_stays(server: Server, passport: Passport, tmp_path: Path) -> None:
    """The line says how much there is, and the next call goes on from there."""
    server.answer = lambda handler: ranged(handler, 1000)
    line = refusal(passport, tmp_path)
    assert line == (
        f"x.pth: the connection to {passport.address} was cut off 3 times; 3,000 of 1,024,000 bytes are in "
        f"{tmp_path / 'x.pth.part'}; run this again to go on from there"
    )
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert names(tmp_path) == ["x.pth.part"]
    server.answer = ranged
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges[3:] == ["bytes=3000-"]


def test_a_part_from_before_is_resumed(server: Server, passport: Passport, tmp_path: Path) -> None:
    """Only the rest is asked for."""
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:HALF])
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]
    assert names(tmp_path) == ["x.pth"]


def test_a_whole_part_is_only_renamed(server: Server, passport: Passport, tmp_path: Path) -> None:
    """An earlier run stopped after the last byte."""
    (tmp_path / "x.pth.part").write_bytes(CONTENT)
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_server_that_ignores_range_starts_over(server: Server, passport: Passport, tmp_path: Path) -> None:
    """The answer 200 holds the whole file, which is not put behind the part."""
    server.answer = whole
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:HALF])
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]


@pytest.mark.parametrize("place", ["bytes 0-9/10", "bytes */10", "words 512000-1023999/1024000", ""])
def test_a_wrong_content_range_starts_over(server: Server, passport: Passport, tmp_path: Path, place: str) -> None:
    """Bytes from another place are never appended."""

    def answer(handler: Handler) -> None:
        if handler.headers["Range"]:
            return handler.say(206, CONTENT[HALF:], Content_Range=place)
        return whole(handler)

    server.answer = answer
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:HALF])
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-", None]


def test_a_part_that_is_too_long_starts_over(server: Server, passport: Passport, tmp_path: Path) -> None:
    """The server has nothing behind its end, and answers 416."""
    (tmp_path / "x.pth.part").write_bytes(b"x" * len(CONTENT))
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-", None]


def test_a_short_piece_is_not_the_end(server: Server, passport: Passport, tmp_path: Path) -> None:
    """A server may send less than was asked for; the whole size that it names counts."""

    def answer(handler: Handler) -> None:
        start = int(handler.headers["Range"][6:-1])
        piece = CONTENT[start : start + 300_000]
        handler.say(206, piece, Content_Range=f"bytes {start}-{start + len(piece) - 1}/{len(CONTENT)}")

    server.answer = answer
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:HALF])
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=512000-", "bytes=812000-"]


def test_a_wrong_checksum_is_refused(passport: Passport, tmp_path: Path) -> None:
    """With what was found and expected; nothing stays."""
    line = refusal(replace(passport, sha256_prefix="01234567"), tmp_path)
    assert f"x.pth: {passport.address} gave a file whose SHA-256 starts with {PREFIX}, expected 01234567" in line
    assert names(tmp_path) == []


def test_a_wrong_part_is_found_out(passport: Passport, tmp_path: Path) -> None:
    """The bytes that were there before are checked too."""
    (tmp_path / "x.pth.part").write_bytes(b"y" * HALF)
    assert "SHA-256 starts with" in refusal(passport, tmp_path)
    assert names(tmp_path) == []
    assert fetch(passport, tmp_path).read_bytes() == CONTENT


def test_md5_is_checked_where_that_is_published(passport: Passport, tmp_path: Path) -> None:
    """As for Keras's files."""
    found = hashlib.md5(CONTENT).hexdigest()
    line = refusal(replace(passport, sha256_prefix=None, md5="0" * 32), tmp_path)
    assert f"whose MD5 is {found}, expected {'0' * 32}" in line
    assert fetch(replace(passport, sha256_prefix=None, md5=found), tmp_path).read_bytes() == CONTENT


def test_the_published_size_is_checked(passport: Passport, tmp_path: Path) -> None:
    """Even without a checksum."""
    line = refusal(replace(passport, sha256_prefix=None, bytes=999_999), tmp_path)
    assert "gave a file of 1,024,000 bytes, expected 999,999" in line
    assert names(tmp_path) == []


def test_a_file_without_checksum_and_size_is_taken(passport: Passport, tmp_path: Path) -> None:
    """As for timm's; the length that the server names is all there is to check."""
    plain = replace(passport, sha256_prefix=None, mebibytes=None)
    assert fetch(plain, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 416, 500, 503, 599])
def test_an_http_error_says_where_to_put_the_file(
    status: int, server: Server, passport: Passport, tmp_path: Path
) -> None:
    """The address, the place and the status, and no second request."""
    server.answer = lambda handler: handler.say(status, b"<html>\n</html>")
    line = refusal(passport, tmp_path)
    assert re.match(rf"x\.pth: can't be fetched: HTTP {status}( [A-Z][A-Za-z ]+)?; try again later, ", line)
    assert line.endswith(f"or download {passport.address} by hand and put it at {tmp_path / 'x.pth'}")
    assert len(server.ranges) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [204, 206])
def test_an_answer_without_the_file_is_refused(status: int, server: Server, passport: Passport, tmp_path: Path) -> None:
    """A success that is none."""
    server.answer = lambda handler: handler.say(status, b"")
    assert f"HTTP {status} where 200 was expected" in refusal(passport, tmp_path)


def test_a_refused_connection_says_where_to_put_the_file(passport: Passport, tmp_path: Path) -> None:
    """Nobody listens there; a part from before stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = replace(passport, address=f"http://127.0.0.1:{taken.getsockname()[1]}/x.pth")
        (tmp_path / "x.pth.part").write_bytes(CONTENT[:HALF])
        line = refusal(closed, tmp_path)
    assert line.startswith("x.pth: can't be fetched: Connection refused; ")
    assert line.endswith(f"download {closed.address} by hand and put it at {tmp_path / 'x.pth'}")
    assert names(tmp_path) == ["x.pth.part"]


def test_a_server_that_stays_silent_is_left(
    passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit, which the line names."""
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = refusal(replace(passport, address=f"http://127.0.0.1:{silent.getsockname()[1]}/"), tmp_path)
    assert "can't be fetched: no answer within 0.05 seconds; " in line


def test_an_answer_that_is_not_http_is_refused(server: Server, passport: Passport, tmp_path: Path) -> None:
    """In one line, whatever it was."""
    server.answer = lambda handler: handler.wfile.write(b"hello\r\nworld\r\n\r\n") and None
    assert "x.pth: can't be fetched: " in refusal(passport, tmp_path)


def test_a_redirection_is_followed(server: Server, passport: Passport, tmp_path: Path) -> None:
    """With the place to go on from."""

    def answer(handler: Handler) -> None:
        if handler.path != "/there":
            return handler.say(302, b"", Location="/there")
        return ranged(handler)

    server.answer = answer
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:HALF])
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"] * 2


@pytest.mark.parametrize(
    ("place", "reason"),
    [("ftp://127.0.0.1/x", "unknown url type: ftp"), ("file:///etc/hostname", "HTTP 302 Found")],
)
def test_a_redirection_leads_to_no_other_scheme(
    place: str, reason: str, server: Server, passport: Passport, tmp_path: Path
) -> None:
    """Only http and https."""
    server.answer = lambda handler: handler.say(302, b"", Location=place)
    assert f"can't be fetched: {reason}; " in refusal(passport, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/x", "file:///etc/hostname", "data:,x", "x.pth"])
def test_an_address_of_another_scheme_is_refused(address: str, passport: Passport, tmp_path: Path) -> None:
    """Only http and https."""
    line = refusal(replace(passport, address=address), tmp_path)
    assert line == f"x.pth: expected an address of http or https, found {address}"


def test_a_file_without_an_address_says_where_to_put_it(passport: Passport, tmp_path: Path) -> None:
    """As for the Caffe ports."""
    line = refusal(replace(passport, address=None), tmp_path)
    assert line == f"x.pth: no address is known to fetch it from; find it elsewhere and put it at {tmp_path / 'x.pth'}"


def test_an_announced_length_beyond_the_limit_is_not_fetched(
    server: Server, passport: Passport, tmp_path: Path
) -> None:
    """A mebibyte more than published is too much."""
    limit = len(CONTENT) + 2**20
    server.answer = lambda handler: handler.say(200, b"", limit + 1)
    assert f"expected at most {limit:,} bytes" in refusal(passport, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("sizes", [{"mebibytes": 0.5}, {"mebibytes": None, "bytes": 2**19}, {"mebibytes": None}])
def test_a_body_without_end_is_left(
    sizes: dict[str, float | None],
    server: Server,
    passport: Passport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never more is written than the published size and a mebibyte, or a fixed limit where no size is published."""
    written: list[int] = []
    monkeypatch.setattr(download, "MAX_BYTES", 2**19 + 2**20)
    monkeypatch.setattr(download, "_progress", lambda _: watching(written))

    def endless(handler: Handler) -> None:
        handler.say(200, b"", -1)
        try:
            while True:
                handler.wfile.write(CONTENT)
        except OSError:  # the other side has left
            return

    server.answer = endless
    assert "that goes on, expected at most 1,572,864 bytes" in refusal(replace(passport, **sizes), tmp_path)
    assert max(written) <= 2**19 + 2**20
    assert names(tmp_path) == []


class watching:  # noqa: N801 (read as a verb: with watching(…))
    """A progress bar that notes how far it got."""

    def __init__(self, written: list[int]) -> None:
        self.written = written

    def __enter__(self) -> Callable[[int, int | None], None]:
        return lambda done, _: self.written.append(done)

    def __exit__(self, *_: object) -> None: ...


def test_a_folder_that_cannot_be_made_is_one_line(passport: Passport, tmp_path: Path) -> None:
    """There is a file where it should be."""
    (tmp_path / "file").write_bytes(b"")
    line = refusal(passport, tmp_path / "file" / "folder")
    assert line.startswith(f"{tmp_path / 'file' / 'folder'}: x.pth can't be kept there: Not a directory; ")
    assert line.endswith("choose another folder (the environment variable TORCH_HOME moves the cache)")


def test_a_folder_that_cannot_be_written_is_one_line(
    server: Server, passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is asked for; root may write everywhere, so the refusal is made up for it."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    if os.access(closed, os.W_OK):

        def refuse(path: object, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(download, "open", refuse, raising=False)
    assert refusal(passport, closed).startswith(f"{closed}: x.pth can't be kept there: Permission denied; ")
    assert server.ranges == []
    assert names(closed) == []


def test_a_full_disk_is_one_line(passport: Passport, tmp_path: Path) -> None:
    """And is not taken for a network that fails; what fitted is gone on from when there is room."""
    with file_size_limit(HALF):
        assert "x.pth can't be kept there: File too large; " in refusal(passport, tmp_path)
    assert names(tmp_path) == ["x.pth.part"]
    assert fetch(passport, tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_a_link_is_not_followed(passport: Passport, tmp_path: Path) -> None:
    """Whoever may write in the folder can't have another file overwritten."""
    other, folder = tmp_path / "other", tmp_path / "folder"
    other.write_bytes(b"other")
    folder.mkdir()
    (folder / "x.pth.part").symlink_to(other)
    assert fetch(passport, folder).read_bytes() == CONTENT
    assert not (folder / "x.pth").is_symlink()
    assert other.read_bytes() == b"other"


@pytest.mark.parametrize("name", ["x.pth.part", "x.pth.lock"])
def test_a_pipe_and_a_link_in_the_way_are_one_line(name: str, passport: Passport, tmp_path: Path) -> None:
    """A pipe is not waited for, and what a link would make is not made."""
    if name.endswith(".lock"):
        (tmp_path / name).symlink_to(tmp_path / "made")
        assert "can't be kept there: Too many levels of symbolic links; " in refusal(passport, tmp_path)
        assert not (tmp_path / "made").exists()
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert "can't be kept there: No such device or address; " in refusal(passport, tmp_path)


def chunked(handler: Handler) -> None:
    """Answer in one chunk, whose length has a comment of 60,000 characters."""
    handler.protocol_version = "HTTP/1.1"
    handler.say(200, b"", -1, Transfer_Encoding="chunked")
    handler.wfile.write(b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), b"a" * 60_000, CONTENT))


def headed(handler: Handler) -> None:
    """Answer with 60,000 characters in front."""
    handler.say(200, CONTENT, **{f"X-{number}": "a" * 1000 for number in range(60)})


@pytest.mark.parametrize("answer", [whole, headed, chunked])
def test_a_server_that_sends_too_slowly_is_left(
    answer: Callable[[Handler], None],
    server: Server,
    passport: Passport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it dawdles, though it is never silent for long: ten seconds pass here with every look at the clock."""
    server.answer = answer
    monkeypatch.setattr(download, "monotonic", itertools.count(0, 10).__next__)
    monkeypatch.setattr(download, "LEAST_BYTES", 2**40)
    line = refusal(passport, tmp_path)
    assert f"x.pth: {passport.address} sends fewer than 1,099,511,627,776 bytes in 30 seconds; " in line
    assert line.endswith(f"bytes are in {tmp_path / 'x.pth.part'}; run this again to go on from there")
    assert len(server.ranges) == 1
    monkeypatch.setattr(download, "LEAST_BYTES", 1)
    assert fetch(passport, tmp_path).read_bytes() == CONTENT


def test_several_at_once_fetch_one_file(server: Server, passport: Passport, tmp_path: Path) -> None:
    """The others wait for the first, whose file they then all return."""
    paths: list[bytes] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(passport, tmp_path).read_bytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [CONTENT] * 8
    assert server.ranges == [None]
    assert names(tmp_path) == ["x.pth"]


def test_who_waited_for_one_that_failed_goes_on(server: Server, passport: Passport, tmp_path: Path) -> None:
    """Every one tries in its turn, never two at once."""
    busy = threading.Lock()

    def answer(handler: Handler) -> None:
        assert busy.acquire(blocking=False)
        try:
            handler.say(200, b"wron", length=5)
        finally:
            busy.release()
        # the last byte behind the release: who has read it may let the next one in before this thread goes on
        handler.wfile.write(b"g")

    server.answer = answer
    lines: list[str] = []
    gathered = threading.Barrier(8)

    def ask() -> None:
        gathered.wait()
        lines.append(refusal(passport, tmp_path))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines) == len(server.ranges) == 8
    assert all("SHA-256 starts with" in line for line in lines)
    assert names(tmp_path) == []


def test_a_lock_on_a_removed_file_is_taken_anew(
    passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for a file that is gone by now would otherwise run beside who locked the new one."""
    locked: list[int] = []
    wait_for = download._wait_for

    def wait_until_it_is_removed(file: IO[bytes]) -> None:
        wait_for(file)
        locked.append(os.fstat(file.fileno()).st_ino)
        if len(locked) == 1:
            (tmp_path / "x.pth.lock").unlink()

    monkeypatch.setattr(download, "_wait_for", wait_until_it_is_removed)
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert len(locked) == 2


def test_a_lock_file_that_a_killed_process_left_is_no_obstacle(passport: Passport, tmp_path: Path) -> None:
    """The operating system held the lock, not the file."""
    (tmp_path / "x.pth.lock").write_bytes(b"")
    assert fetch(passport, tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["x.pth"]


def test_an_interrupt_leaves_the_part(passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no lock."""

    class Interrupt(watching):
        def __enter__(self) -> Callable[[int, int | None], None]:
            return self.stop

        def stop(self, done: int, _: int | None) -> None:
            if done:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_progress", lambda _: Interrupt([]))
        with pytest.raises(KeyboardInterrupt):
            fetch(passport, tmp_path)
    assert names(tmp_path) == ["x.pth.part"]
    assert fetch(passport, tmp_path).read_bytes() == CONTENT


class Terminal(io.StringIO):
    """A terminal as far as it says."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_a_terminal_sees_a_bar(passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file's name."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(passport, tmp_path)
    assert "x.pth" in terminal.getvalue()
    assert "1.0/1.0 MB" in terminal.getvalue()


def test_a_pipe_sees_nothing(passport: Passport, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither on stderr nor on stdout."""
    fetch(passport, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_build_fetches_the_published_file_and_loads_it(
    server: Server, passport: Passport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`weights="imagenet"` ends in a model with the values of the file that was published for it."""
    donor = small("D")
    content = in_layout(donor, "torchvision", tmp_path).read_bytes()
    server.answer = lambda handler: handler.say(200, content)
    known = replace(passport, mebibytes=None, bytes=len(content), sha256_prefix=hashlib.sha256(content).hexdigest()[:8])
    monkeypatch.setattr("vggkit.model.weights.published.imagenet", {"D": known}.__getitem__)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = build(donor.network, weights="imagenet")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), donor.parameters(), strict=True))
    assert names(tmp_path / "checkpoints") == ["x.pth"]
    assert model.report is not None
    assert model.report.source == str(tmp_path / "checkpoints" / "x.pth")
