# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.inputs import is_interactive
from keytok_haystack.cli.options import (
    ContentFieldOption,
    EmbeddingFieldOption,
    EngineOption,
    IndexOption,
    JsonFlag,
    UrlOption,
)
from keytok_haystack.model import KeyTokenModel


def backfill_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    model: Annotated[Path, typer.Option(help="The key-token model, for embeddings of the kind that the index has.")],
    embedding_field: EmbeddingFieldOption = "embedding",
    content_field: ContentFieldOption = "content",
    field: Annotated[str, typer.Option(help="The field of the key tokens to write.")] = "key_tokens",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, and show what would be done.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave documents alone that have key tokens, without looking at them.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """
    Give the documents of an index key tokens, made of the dense vectors that it has: nothing is embedded again.

    All other fields survive as they are, what others write meanwhile is not overwritten, and the command can be run
    again at any time: what is done is not written twice.
    """
    from keytok_haystack.cli.backfilling import show_report, show_trial  # noqa: PLC0415  # needs an extra
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415
    from keytok_haystack.live_index import Fields, backfill, trial  # noqa: PLC0415

    loaded = KeyTokenModel.load(model)
    store, fields = document_store(engine, url, index), Fields(embedding_field, content_field, field)
    if dry_run:
        show_trial(trial(store, loaded, fields), index, field, as_json=as_json)
        return
    report = backfill(store, loaded, fields, resume=resume, progress_bar=is_interactive())
    done = f"{report.written:,} of {report.documents:,} documents have got key tokens in '{field}'"
    show_report(report, index, done, f"{report.already:,} had them", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
