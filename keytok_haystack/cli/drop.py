# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from typing import Annotated

import typer

from keytok_haystack.cli.index_display import show_report
from keytok_haystack.cli.inputs import is_interactive
from keytok_haystack.cli.options import EngineOption, IndexOption, JsonFlag, UrlOption


def drop_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    field: Annotated[str, typer.Option(help="Field of the key tokens to remove.")],
    as_json: JsonFlag = False,
) -> None:
    """Remove a field of key tokens from all documents of an index, when another has taken its place."""
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415  # needs an extra
    from keytok_haystack.live_index import drop  # noqa: PLC0415  # needs an extra

    report = drop(document_store(engine, url, index), field, progress_bar=is_interactive())
    done = f"'{field}' was removed from {report.written:,} of {report.documents:,} documents"
    show_report(report, index, done, f"{report.already:,} did not have it", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
