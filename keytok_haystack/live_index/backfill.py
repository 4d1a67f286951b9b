# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Key tokens for the documents of an index that has dense vectors, without embedding anything again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from haystack.document_stores.types import DocumentStore

from keytok_haystack.engines import MappingError, index_definition
from keytok_haystack.engines.connection import PATIENCE, Connection, connected
from keytok_haystack.live_index.changes import Failure, RewriteReport, Rewritten, Skipped
from keytok_haystack.live_index.documents import StoredDocument
from keytok_haystack.live_index.fields import HAYSTACK_FIELDS, Fields
from keytok_haystack.live_index.inspection import Inspection, inspection_of, leaves_out
from keytok_haystack.live_index.mappings import change_mappings, embedding_dimension, planned_changes
from keytok_haystack.live_index.projection import Projection, warning_about_embeddings
from keytok_haystack.live_index.rewrite import rewrite
from keytok_haystack.live_index.scan import scan
from keytok_haystack.model import KeyTokenModel, loaded_model

_EXAMPLES = 3


@dataclass(frozen=True)
class DryRun:
    """
    Result of a backfill of the first documents that writes nothing.

    :param inspection: What the index is like.
    :param tried: Number of documents that were tried.
    :param already: Number of those that are up to date.
    :param without_embedding: Number of those that have no embedding.
    :param failures: Those that could not be changed, with reasons.
    :param examples: Texts of three documents, and the key tokens that they would get.
    """

    inspection: Inspection
    tried: int
    already: int
    without_embedding: int
    failures: list[Failure]
    examples: list[tuple[str, dict[str, float]]]


def backfill(
    store: DocumentStore,
    model: KeyTokenModel | str | Path,
    fields: Fields = HAYSTACK_FIELDS,
    *,
    resume: bool = False,
    keep_versions: bool = False,
    confirm: Callable[[Inspection], None] | None = None,
    patience: float = PATIENCE,
    progress_bar: bool = True,
) -> RewriteReport:
    """
    Give the documents of an index key tokens, made of the dense vectors that are stored there.

    The field is added to the live mapping. Each document's other fields survive byte for byte; its field of key tokens
    is replaced as a whole. A document that others change meanwhile is read and written again. Running it twice changes
    nothing, and after an interruption of any kind it can be run again. An index whose `_source` leaves the field out
    (`index_definition(lean=True)`) does not show what its documents have, so all of them are written.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over one index, alias or data stream that
        exists.
    :param model: Key-token model for embeddings of the kind that is stored, or the path of its folder.
    :param fields: Fields of the index.
    :param resume: Whether to skip documents that show any key tokens, without projecting their embeddings, which is
        the quick way to go on after an interruption.
    :param keep_versions: Whether to write documents under the versions that they have, where an outside system sets
        them (`version_type=external`). Then a version tells whether others have changed a document: a change under the
        same version may be overwritten, and a document may return that was deleted, longer than the index remembers
        deletions (`index.gc_deletes`, 60 s, and never beyond a restart of its shard), between reading and writing it.
    :param confirm: Function that is called with what the index is like before anything is written, and may raise an
        error.
    :param patience: Seconds to wait for an engine that goes away or is busy.
    :param progress_bar: Whether to show a progress bar.
    :returns: Number of documents that were written, were up to date, have no embedding or failed.
    :raises TypeError: The store is of another kind.
    :raises MappingError: The index has no such embeddings, has the field already, of another type or for another model,
        or is one whose documents would lose or change something (`inspect_index`). Nothing is written then.
    :raises DocumentStoreError: The engine cannot be reached, stays away, or refuses.
    """
    started = time.perf_counter()
    model = loaded_model(model)
    with connected(store, patience) as connection:
        inspection = inspection_of(connection, fields.key_tokens, keep_versions=keep_versions)
        changes = _checked_changes(connection, inspection, model, fields)
        inspection = _with_warning(inspection, model, fields, _first_page(connection))
        if confirm is not None:
            confirm(inspection)
        change_mappings(connection, changes)
        is_lean = any(leaves_out(mappings, fields.key_tokens) for mappings in inspection.mappings.values())
        projection = Projection(model, fields, resume=resume)
        counts = rewrite(
            connection,
            projection,
            description="Finding key tokens",
            progress_bar=progress_bar,
            shows_change=not is_lean,
            keep_versions=keep_versions,
        )
    return counts.report(inspection.warnings, time.perf_counter() - started)


def dry_run(
    store: DocumentStore,
    model: KeyTokenModel | str | Path,
    fields: Fields = HAYSTACK_FIELDS,
    *,
    keep_versions: bool = False,
) -> DryRun:
    """
    Show what a backfill would do, without changing anything.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over an index that exists.
    :param model: Key-token model for embeddings of the kind that is stored, or the path of its folder.
    :param fields: Fields of the index.
    :param keep_versions: Whether documents are to be written under the versions that they have.
    :returns: What the index is like, and examples from the first 500 of them.
    :raises TypeError: The store is of another kind.
    :raises MappingError: `backfill` would refuse the index.
    :raises DocumentStoreError: The engine cannot be reached, or refuses.
    """
    model = loaded_model(model)
    with connected(store, patience=0) as connection:
        inspection = inspection_of(connection, fields.key_tokens, keep_versions=keep_versions)
        _checked_changes(connection, inspection, model, fields)
        page = _first_page(connection)
        inspection = _with_warning(inspection, model, fields, page)
    changes = Projection(model, fields)(page)
    examples = [
        (fields.text_of(document), msgspec.json.decode(change.source[fields.key_tokens], type=dict[str, float]))
        for document, change in zip(page, changes, strict=True)
        if isinstance(change, Rewritten)
    ]
    return DryRun(
        inspection=inspection,
        tried=len(page),
        already=changes.count(Skipped.UP_TO_DATE),
        without_embedding=changes.count(Skipped.WITHOUT_EMBEDDING),
        failures=[change for change in changes if isinstance(change, Failure)],
        examples=examples[:_EXAMPLES],
    )


def _first_page(connection: Connection) -> list[StoredDocument]:
    with scan(connection, {"match_all": {}}) as (_, pages):
        return next(pages, [])


def _with_warning(
    inspection: Inspection, model: KeyTokenModel, fields: Fields, documents: list[StoredDocument]
) -> Inspection:
    """Return an inspection that warns of embeddings which the model seems not to read, too."""
    warning = warning_about_embeddings(model, fields, documents)
    return replace(inspection, warnings=[*inspection.warnings, warning]) if warning else inspection


def _checked_changes(
    connection: Connection, inspection: Inspection, model: KeyTokenModel, fields: Fields
) -> dict[str, dict[str, Any]]:
    """
    Return the changes of mappings that a backfill needs.

    :raises MappingError: The index has no fitting embeddings, or the field for something else.
    """
    live = inspection.mappings
    dimension = embedding_dimension(live, fields.embedding, connection.index)
    if dimension is not None and dimension != model.dimension:
        msg = (
            f"The field '{fields.embedding}' of '{connection.index}' has {dimension} dimensions, but the model reads "
            f"embeddings of {model.dimension}: it was made for another embedder."
        )
        raise MappingError(msg)
    definition = index_definition(connection.engine, None, model, field=fields.key_tokens, version=connection.version)
    return planned_changes(live, definition, fields.key_tokens, model.fingerprint)
