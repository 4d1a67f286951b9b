# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.confirmation import confirm_rewrite
from keytok_haystack.cli.index_display import show_dry_run, show_report
from keytok_haystack.cli.options import (
    CaCertOption,
    ContentFieldOption,
    EmbeddingFieldOption,
    EngineOption,
    IndexOption,
    InsecureFlag,
    JsonFlag,
    KeepVersionsFlag,
    UrlOption,
    YesFlag,
)
from keytok_haystack.utils.extras import needs_engine


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
    keep_versions: KeepVersionsFlag = False,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """
    Give the documents of an index key tokens, made of its dense vectors: nothing is embedded again.

    All other fields stay as they are, changes that others make meanwhile are not overwritten, and the command can be
    run again at any time: documents that are up to date are not written again. An index that it could damage is
    refused.
    """
    with needs_engine(engine):
        from keytok_haystack import live_index  # noqa: PLC0415
        from keytok_haystack.engines.connection import document_store  # noqa: PLC0415

        store = document_store(engine, url, index, ca_cert=ca_cert, verify=not insecure)
    fields = live_index.Fields(embedding_field, content_field, field)
    if dry_run:
        show_dry_run(live_index.dry_run(store, model, fields, keep_versions=keep_versions), field, as_json=as_json)
        return
    change = (
        f"'{field}' will be written anew where '{embedding_field}' has a vector; all other fields stay, and hits of "
        "all retrievers will have this one, too"
    )
    confirm = None if yes else partial(confirm_rewrite, change)
    report = live_index.backfill(store, model, fields, resume=resume, keep_versions=keep_versions, confirm=confirm)
    done = f"{report.written:,} of {report.documents:,} documents have got key tokens in '{field}'"
    show_report(report, index, done, f"{report.already:,} had them", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
