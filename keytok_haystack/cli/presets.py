# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from rich.text import Text

from keytok_haystack.cli.terminal import terminal
from keytok_haystack.encoders import overview


def presets_command() -> None:
    """List the language models that are known by name, and their recipes."""
    console = terminal()
    for name, checkpoint, pooling, attention, backbone in overview():
        recipe = f"  pooling: {pooling}" + (f"; attention: {attention}" if attention else "")
        lines = [*checkpoint.replace(" + ", "\n+ ").splitlines(), *([f"head of {backbone}"] if backbone else [])]
        indented = "".join(f"\n    {line}" for line in lines)  # whole names do not fit beside each other
        console.print(Text.assemble((name, "bold"), (recipe, "dim"), indented), soft_wrap=True)
