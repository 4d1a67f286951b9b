# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Paths of the files that come with the project, in a clone and in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def resource(name: str) -> Path:
    """
    Return the path of a file or folder that comes with the project.

    :param name: Its path below the root of the repository, such as "pipelines" or "examples/cranfield".
    :raises FileNotFoundError: There is no such resource.
    """
    for root in (_PACKAGE / "_bundled", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    msg = f"keytok-haystack comes with no '{name}': the installation is incomplete."
    raise FileNotFoundError(msg)
