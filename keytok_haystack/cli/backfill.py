# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.index_display import show_dry_run, show_report
from keytok_haystack.cli.inputs import is_interactive
from keytok_haystack.cli.options import (
    ContentFieldOption,
    EmbeddingFieldOption,
    EngineOption,
    IndexOption,
    JsonFlag,
    UrlOption,
)


def backfill_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    model: Annotated[Path, typer.Option(help="Path of a key-token model for embeddings of the kind that is stored.")],
    embedding_field: EmbeddingFieldOption = "embedding",
    content_field: ContentFieldOption = "content",
    field: Annotated[str, typer.Option(help="Field of the key tokens to write.")] = "key_tokens",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip documents that have any key tokens, without checking these.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """
    Give the documents of an index key tokens, made of its dense vectors: nothing is embedded again.

    All other fields stay as they are, changes that others make meanwhile are not overwritten, and the command can be
    run again at any time: documents that are up to date are not written again.
    """
    from keytok_haystack import live_index  # noqa: PLC0415  # needs an extra
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415  # needs an extra

    store = document_store(engine, url, index)
    fields = live_index.Fields(embedding_field, content_field, field)
    if dry_run:
        show_dry_run(live_index.dry_run(store, model, fields), index, field, as_json=as_json)
        return
    report = live_index.backfill(store, model, fields, resume=resume, progress_bar=is_interactive())
    done = f"{report.written:,} of {report.documents:,} documents have got key tokens in '{field}'"
    show_report(report, index, done, f"{report.already:,} had them", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
