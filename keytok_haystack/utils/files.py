# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all, and reports as JSON."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replaced_folder(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """
    Give a new, empty folder beside a path; it takes the path's place when the block ends without an error.

    What is at the path stays as it is until then, and is back in its place if the replacement fails.

    :param path: The folder to replace; its parents are created.
    :param keep_existing: Whether to keep what another process has put at the path meanwhile.
    :raises OSError: The folder cannot be written or moved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        yield new
        if path.exists():
            if keep_existing:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        new = Path(temporary) / path.name
        yield new
        new.replace(path)


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
