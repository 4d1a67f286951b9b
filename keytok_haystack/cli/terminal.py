# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The terminal: all that commands print goes through here, and nothing that a text says is obeyed there."""

import json
import logging
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.segment import Segment
from rich.text import Text

from keytok_haystack.utils.visible import visible

_AFTER_ASCII = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class _Visible:
    """What a renderable shows, with its control characters made visible."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _MakeVisible(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Control) else _Visible(each) for each in renderables]


def terminal(*, stderr: bool = False, quiet: bool = False) -> Console:
    """
    Return a console that makes control characters visible.

    :param stderr: Whether to write to stderr.
    :param quiet: Whether to write nothing.
    """
    console = Console(stderr=stderr, quiet=quiet, highlight=False)
    console.push_render_hook(_MakeVisible())
    return console


def warn(message: str) -> None:
    """Print a warning to stderr."""
    terminal(stderr=True).print(Text(message, style="yellow"), soft_wrap=True)


def print_json(data: Any) -> None:
    """Print data as JSON, in which control characters are escaped."""
    text = json.dumps(data, ensure_ascii=False, indent=2).translate(_AFTER_ASCII)
    terminal().print(Text(text), soft_wrap=True)


class WarningHandler(logging.Handler):
    """Handler of log records that nothing else handles: a line each on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        terminal(stderr=True).print(Text(record.getMessage()), soft_wrap=True)
