# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_SECONDS = 30.0  # between two lines


class _Stream:
    """A stream that gets a line for each time that a bar is drawn."""

    def write(self, text: str) -> None:
        if shown := text.strip("\r\n "):
            sys.stderr.write(f"{shown}\n")

    def flush(self) -> None:
        sys.stderr.flush()


class _Lines(tqdm):  # type: ignore[type-arg]
    """A progress bar that is a line now and then, and none for what is done sooner."""

    def __init__(self, things: Iterable[Any] | None, **options: Any) -> None:
        self._next = time.monotonic() + _SECONDS
        options |= {"mininterval": _SECONDS, "maxinterval": _SECONDS, "delay": _SECONDS, "ascii": True, "ncols": 0}
        super().__init__(things, file=_Stream(), **options)

    def refresh(self, *arguments: Any, **options: Any) -> None:
        """Say a line if it is time for one: tqdm itself calls this also where a total is set, or a postfix."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS
            super().refresh(*arguments, **options)


def progress_of(
    description: str,
    unit: str,
    *,
    shown: bool,
    total: int | None = None,
    things: Iterable[Any] | None = None,
    **options: Any,
) -> Any:
    """
    Return a progress bar of tqdm; on what is no terminal, a line every half minute, and none for what is done sooner.

    :param description: What is done.
    :param unit: What it is done with, in the plural.
    :param shown: Whether to show progress.
    :param total: Number of things that it is done with, if it is known.
    :param things: The things themselves, to iterate over.
    :param options: Further options of tqdm.
    """
    bar = tqdm if sys.stderr.isatty() else _Lines
    return bar(things, desc=description, unit=f" {unit}", disable=not shown, total=total, **options)
