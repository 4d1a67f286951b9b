# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from functools import partial
from typing import Annotated

import typer

from keytok_haystack.cli.confirmation import confirm_rewrite
from keytok_haystack.cli.index_display import show_report
from keytok_haystack.cli.options import (
    CaCertOption,
    EngineOption,
    IndexOption,
    InsecureFlag,
    JsonFlag,
    KeepVersionsFlag,
    UrlOption,
    YesFlag,
)
from keytok_haystack.utils.extras import needs_engine


def drop_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    field: Annotated[str, typer.Option(help="Field of the key tokens to remove.")],
    keep_versions: KeepVersionsFlag = False,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove a field of key tokens from all documents of an index, when another has taken its place."""
    with needs_engine(engine):
        from keytok_haystack.engines.connection import document_store  # noqa: PLC0415
        from keytok_haystack.live_index import drop  # noqa: PLC0415

        store = document_store(engine, url, index, ca_cert=ca_cert, verify=not insecure)
    confirm = None if yes else partial(confirm_rewrite, f"'{field}' will be removed")
    report = drop(store, field, keep_versions=keep_versions, confirm=confirm)
    done = f"'{field}' was removed from {report.written:,} of {report.documents:,} documents"
    show_report(report, index, done, f"{report.already:,} did not have it", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
