# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `keytok`."""

import sys


def main() -> None:
    """Run the command line, or say what to install if that is what it lacks."""
    try:
        from keytok_haystack.cli.app import run  # noqa: PLC0415  # the extras may not be installed
    except ModuleNotFoundError as error:
        sys.exit(f"keytok needs the package '{error.name}': pip install 'keytok-haystack[demo]'")
    run()
