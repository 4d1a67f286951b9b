# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Removal of a field of key tokens from the documents of an index."""

import time
from collections.abc import Callable, Sequence

from haystack.document_stores.types import DocumentStore

from keytok_haystack.engines import MappingError, key_token_field
from keytok_haystack.engines.connection import PATIENCE, connected
from keytok_haystack.live_index.changes import Change, RewriteReport, Rewritten, Skipped
from keytok_haystack.live_index.documents import StoredDocument
from keytok_haystack.live_index.fields import check_root_fields
from keytok_haystack.live_index.inspection import Inspection, inspection_of, leaves_out
from keytok_haystack.live_index.mappings import forget_model
from keytok_haystack.live_index.rewrite import rewrite


def drop(
    store: DocumentStore,
    field: str,
    *,
    keep_versions: bool = False,
    confirm: Callable[[Inspection], None] | None = None,
    patience: float = PATIENCE,
    progress_bar: bool = True,
) -> RewriteReport:
    """
    Remove a field of key tokens from all documents of an index, when another has taken its place.

    No engine can remove the field from the mapping, too; it stays there, free for another model. It is not free if a
    document could not be written, or only part of the documents are to be seen: the others still have it.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over one index, alias or data stream that
        exists.
    :param field: Field of the key tokens.
    :param keep_versions: Whether to write documents under the versions that they have (`backfill`).
    :param confirm: Function that is called with what the index is like before anything is written, and may raise an
        error.
    :param patience: Seconds to wait for an engine that goes away or is busy.
    :param progress_bar: Whether to show a progress bar.
    :returns: Number of documents that were written, did not have the field or failed.
    :raises TypeError: The store is of another kind.
    :raises MappingError: The index has no such field, it is not one of key tokens, or documents of the index would lose
        or change something (`inspect_index`). Nothing is written then.
    :raises DocumentStoreError: The engine cannot be reached, stays away, or refuses.
    """
    check_root_fields(field)
    started = time.perf_counter()
    with connected(store, patience) as connection:
        inspection = inspection_of(connection, field, keep_versions=keep_versions, wanted=False)
        for name, mappings in inspection.mappings.items():
            key_token_field(mappings, field, name)
            if leaves_out(mappings, field):
                msg = (
                    f"The index '{name}' keeps documents without '{field}' (`_source` in its mapping), so none shows "
                    "whether it has key tokens: create another index instead."
                )
                raise MappingError(msg)

        if confirm is not None:
            confirm(inspection)

        def without_field(documents: Sequence[StoredDocument]) -> list[Change]:
            return [
                Rewritten({name: value for name, value in document.source.items() if name != field})
                if field in document.source
                else Skipped.UP_TO_DATE
                for document in documents
            ]

        counts = rewrite(
            connection,
            without_field,
            description="Dropping key tokens",
            progress_bar=progress_bar,
            keep_versions=keep_versions,
        )
        if not (counts.failed or inspection.is_partial):
            forget_model(connection, field)
    return counts.report(inspection.warnings, time.perf_counter() - started)
