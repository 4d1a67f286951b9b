# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Removal of a field of key tokens from the documents of an index."""

import time
from collections.abc import Sequence

from haystack.document_stores.types import DocumentStore

from keytok_haystack.engines import key_token_field
from keytok_haystack.engines.connection import PATIENCE, connected
from keytok_haystack.live_index.changes import Change, RewriteReport, Rewritten, Skipped
from keytok_haystack.live_index.documents import StoredDocument
from keytok_haystack.live_index.fields import check_root_fields
from keytok_haystack.live_index.mappings import check_whole_sources, forget_model, mappings_of
from keytok_haystack.live_index.rewrite import rewrite


def drop(store: DocumentStore, field: str, *, patience: float = PATIENCE, progress_bar: bool = True) -> RewriteReport:
    """
    Remove a field of key tokens from all documents of an index, when another has taken its place.

    No engine can remove the field from the mapping, too; it stays there, free for another model.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over an index that exists.
    :param field: Field of the key tokens.
    :param patience: Seconds to wait for an engine that goes away or is busy.
    :param progress_bar: Whether to show a progress bar.
    :returns: Number of documents that were written, did not have the field or failed.
    :raises TypeError: The store is of another kind.
    :raises MappingError: The index has no such field, or it is not one of key tokens.
    :raises DocumentStoreError: The engine cannot be reached, stays away, or refuses.
    """
    check_root_fields(field)
    started = time.perf_counter()
    with connected(store, patience) as connection:
        live = mappings_of(connection)
        for name, mappings in live.items():
            key_token_field(mappings, field, name)
        check_whole_sources(live)

        def without_field(documents: Sequence[StoredDocument]) -> list[Change]:
            return [
                Rewritten({name: value for name, value in document.source.items() if name != field})
                if field in document.source
                else Skipped.UP_TO_DATE
                for document in documents
            ]

        counts = rewrite(connection, without_field, description="Dropping key tokens", progress_bar=progress_bar)
        if not counts.failed:
            forget_model(connection, field)
    return counts.report(time.perf_counter() - started)
