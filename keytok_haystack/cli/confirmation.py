# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Confirmation of what cannot be undone."""

import sys
from typing import TYPE_CHECKING

import typer

from keytok_haystack.cli.terminal import warn
from keytok_haystack.utils.visible import visible

if TYPE_CHECKING:
    from keytok_haystack.live_index import Inspection  # needs an extra


def confirm(consequence: str) -> None:
    """
    Ask whether to go on.

    :param consequence: Sentence that says what will happen.
    :raises ValueError: There is nobody to ask.
    :raises typer.Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        msg = f"{consequence} Confirm it with --yes."
        raise ValueError(msg)
    typer.confirm(visible(f"{consequence} Go on?"), abort=True, err=True)


def confirm_rewrite(change: str, inspection: "Inspection") -> None:
    """
    Tell what a rewrite will do, and ask whether to go on.

    :param change: Clause that says what becomes of the documents.
    :param inspection: What the index is like.
    :raises ValueError: There is nobody to ask.
    :raises typer.Abort: The answer is no.
    """
    for warning in inspection.warnings:
        warn(warning)
    documents = f"{inspection.documents:,} document{'' if inspection.documents == 1 else 's'}"
    confirm(f"In {documents} of {inspection.described}, {change}.")
