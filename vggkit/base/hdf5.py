"""HDF5 files of anybody's: what the library itself can't survive is found out in another process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from vggkit.base.errors import escaped

LARGEST_ATTRIBUTE = 2**22
"""Bytes."""

REHEARSAL = Path(__file__).with_name("rehearsal.py")

REHEARSAL_SECONDS = 60.0
"""Limit for a process that waits; the rehearsal itself limits its processor time."""

REFUSED = 3
"""The rehearsal's exit status when it refuses a file; it prints why in one line."""

MOST_EXIT_CODE = 255
"""An exit code outside 0 to this is a crash: minus a signal's number, or Windows's 0xC0000005."""


def rehearse(path: str, member: str = "") -> None:
    """Read an HDF5 file in another process first.

    Args:
        path: the file.
        member: the HDF5 file's name if the file is an archive, in which it is not compressed.

    Raises:
        ValueError: if the library loops or crashes, or the file refers to others or claims more than it has; says it in
            one line.
    """
    command = [sys.executable, "-I", str(REHEARSAL), path, member, str(LARGEST_ATTRIBUTE)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=REHEARSAL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _damaged("never ends") from None
    if done.returncode == REFUSED:
        raise ValueError(escaped(done.stdout.decode("ascii", "replace")[:200]))
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise _damaged("never ends")
    if not 0 <= done.returncode <= MOST_EXIT_CODE:
        raise _damaged("crashes")


def _damaged(what_happens: str) -> ValueError:
    return ValueError(f"it is damaged, reading it {what_happens}; save or download it again")
