# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all, and reports as JSON."""

import ctypes
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_OURS = ".keytok-"
_LITTER_AGE = 60.0  # seconds, after which a place is surely locked by its writer
_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of renameat2(2)


@contextmanager
def replaced_folder(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """
    Give a new, empty folder beside a path; it takes the path's place when the block ends without an error.

    What is at the path stays as it is until then, and is back in its place if the replacement fails. On Linux both
    change places in one step, so that readers find the one or the other.

    :param path: The folder to replace; its parents are created.
    :param keep_existing: Whether to keep what another process has put at the path meanwhile.
    :raises OSError: The folder cannot be written or moved.
    """
    with _place_beside(path) as place:
        new, old = place / "new", place / "old"
        new.mkdir()
        yield new
        if path.exists():
            if keep_existing or _exchanged(new, path):
                return
            path.replace(old)
        try:
            new.replace(path)
        except BaseException:
            if old.exists():
                old.replace(path)
            elif keep_existing and path.is_dir():
                return
            raise


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """
    Give the path of a new file beside another; it takes that one's place when the block ends without an error.

    :param path: The file to replace; its parents are created.
    :raises OSError: The file cannot be written or moved.
    """
    if path.is_dir():
        msg = f"'{path}' is a folder, not a file."
        raise IsADirectoryError(msg)
    with _place_beside(path) as place:
        new = place / path.name
        yield new
        new.replace(path)


@contextmanager
def _place_beside(path: Path) -> Iterator[Path]:
    """Give a new folder beside a path, which is removed in the end, as are those that killed processes have left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_OURS) as place, FileLock(Path(place) / "lock"):
        yield Path(place)


def _remove_litter(folder: Path) -> None:
    """Remove the places of writers that have been killed: nobody holds their locks."""
    for place in folder.glob(f"{_OURS}*/"):
        with suppress(OSError, Timeout):
            is_new = time.time() - place.stat().st_mtime < _LITTER_AGE
            if not is_new and not (place / "old").exists():  # which would be the only copy of what was there
                with FileLock(place / "lock", timeout=0):
                    shutil.rmtree(place)


def _exchanged(new: Path, path: Path) -> bool:
    """Let two folders change places in one step, and return whether the system can do that."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # of glibc 2.28 and later
    return rename is not None and rename(_HERE, os.fsencode(new), _HERE, os.fsencode(path), _EXCHANGE) == 0


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """
    Hold a path for this process, which is going to write it after long work.

    :param path: The path; its parents are created, and removed if they are empty in the end.
    :raises FileExistsError: Another process holds it.
    :raises OSError: Nothing can be written there.
    """
    path = path.absolute()
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{_OURS}{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        msg = f"Another process is about to write '{path}': wait for it, or choose another path."
        raise FileExistsError(msg) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # unless something has been written there
            for parent in missing:
                parent.rmdir()


def write_json(path: Path, data: Any) -> None:
    """Write a report as indented JSON; the parents of the path are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def rounded(data: Any) -> Any:
    """Return JSON data with its numbers rounded to 6 significant digits."""
    if isinstance(data, Mapping):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [rounded(value) for value in data]
    return float(f"{data:.6g}") if isinstance(data, float) else data
