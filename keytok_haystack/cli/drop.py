# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from typing import Annotated

import typer

from keytok_haystack.cli.inputs import is_interactive
from keytok_haystack.cli.options import EngineOption, IndexOption, JsonFlag, UrlOption


def drop_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    field: Annotated[str, typer.Option(help="The field of key tokens to empty.")],
    as_json: JsonFlag = False,
) -> None:
    """Take a field of key tokens out of all documents of an index, when another has taken its place."""
    from keytok_haystack.cli.backfilling import show_report  # noqa: PLC0415  # needs an extra
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415
    from keytok_haystack.live_index import drop  # noqa: PLC0415

    report = drop(document_store(engine, url, index), field, progress_bar=is_interactive())
    done = f"'{field}' was taken out of {report.written:,} of {report.documents:,} documents"
    show_report(report, index, done, f"{report.already:,} did not have it", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
