# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from rich.table import Table

from keytok_haystack.cli.terminal import terminal
from keytok_haystack.encoders import overview


def presets_command() -> None:
    """List the language models that are known by name, and their recipes."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("name", no_wrap=True, style="bold")
    for column in ("checkpoint", "pooling", "attention", "head of"):
        table.add_column(column, overflow="fold")
    for row in overview():
        table.add_row(*row)
    terminal().print(table)
