# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `keytok`."""

import os
import sys

from keytok_haystack.utils.extras import explained


def main() -> None:
    """Run the command line, or say what to install if that is what it lacks."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when huggingface_hub is imported
    try:
        from keytok_haystack.cli.app import run  # noqa: PLC0415  # the extras may not be installed

        run()
    except ModuleNotFoundError as error:
        sys.exit(explained(error))
