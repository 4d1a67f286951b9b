# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Rewriting one page of documents: bulk requests that write nothing that others have changed meanwhile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from haystack.document_stores.errors import DocumentStoreError

from keytok_haystack.engines.connection import BusyError, Connection
from keytok_haystack.engines.failures import is_transient_status
from keytok_haystack.live_index.changes import Changer, Failure, RewriteCounts, Rewritten, Skipped
from keytok_haystack.live_index.documents import Hits, StoredDocument, hits_of
from keytok_haystack.live_index.scan import scan_request

_LARGEST_REQUEST = 8_000_000  # bytes; hosted engines refuse 10 MB
_ROUNDS = 5


def rewrite_page(
    connection: Connection, page: Sequence[StoredDocument], change: Changer, *, keep_versions: bool = False
) -> RewriteCounts:
    """
    Change documents and write them back, unless others have changed them meanwhile: then read and change them again.

    :param connection: Connection to the index.
    :param page: Documents as they were read.
    :param change: Function that returns the change of each document.
    :param keep_versions: Whether to write documents under the versions that they have, which an outside system sets.
    :returns: Counts of the documents.
    """
    condition = _same_version if keep_versions else _same_sequence_number
    counts = RewriteCounts(read=len(page))
    for _ in range(_ROUNDS):
        rewritten: list[tuple[StoredDocument, Rewritten]] = []
        for document, changed in zip(page, change(page), strict=True):
            if isinstance(changed, Rewritten):
                if document.version > document.seq_no + 1 and not keep_versions:  # more than writes of its shard
                    counts.fail(Failure(document.id, f"an outside system has set its version, {document.version}"))
                else:
                    rewritten.append((document, changed))
            elif isinstance(changed, Skipped):
                counts.skipped[changed] += 1
            else:
                counts.fail(changed)
        conflicts = [document for part in _parts(rewritten, condition) for document in _write(connection, part, counts)]
        if not conflicts:
            return counts
        page = _read_again(connection, conflicts)
    reason = f"others have changed it {_ROUNDS} times before it could be written"
    counts.fail(*(Failure(document.id, reason) for document in page))
    return counts


_Item = tuple[StoredDocument, str]
"""Document, and the lines of a bulk request that write it."""


def _parts(
    rewritten: Sequence[tuple[StoredDocument, Rewritten]], condition: Callable[[StoredDocument], dict[str, Any]]
) -> Iterator[list[_Item]]:
    """Divide documents into requests of a size that engines accept."""
    part: list[_Item] = []
    size = 0
    for document, changed in rewritten:
        # line breaks end documents in bulk requests; in JSON they are white space, since strings have them escaped
        source = msgspec.json.encode(changed.source).replace(b"\n", b" ").replace(b"\r", b" ")
        action = {"_index": document.index, "_id": document.id, **condition(document)}
        if document.routing is not None:
            action["routing"] = document.routing
        lines = msgspec.json.encode({"index": action}) + b"\n" + source
        if part and size + len(lines) > _LARGEST_REQUEST:
            yield part
            part, size = [], 0
        part.append((document, lines.decode()))
        size += len(lines) + 1
    if part:
        yield part


def _write(connection: Connection, items: list[_Item], counts: RewriteCounts) -> list[StoredDocument]:
    """Write documents that are still as they were read, and return the others."""
    conflicts: list[StoredDocument] = []
    remaining = items

    def attempt() -> None:
        nonlocal remaining
        # `_none`: the index's own ingest pipeline has processed the document when it was first written
        answer = connection.client.bulk(body=[lines for _, lines in remaining], pipeline="_none")
        busy: list[_Item] = []
        reason = ""
        for item, result in zip(remaining, answer["items"], strict=True):
            error, status = result["index"].get("error"), result["index"]["status"]
            if error is None:
                counts.written += 1
            elif status == HTTPStatus.CONFLICT:
                conflicts.append(item[0])
            elif error["type"] == "cluster_block_exception" and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                msg = f"The index '{item[0].index}' cannot be written: {error['reason']}"
                raise DocumentStoreError(msg)
            elif is_transient_status(status):
                busy.append(item)
                reason = error["reason"]
            else:
                counts.fail(Failure(item[0].id, _reason(error)))
        remaining = busy
        if busy:
            msg = f"{connection.server.name} has turned documents away for {connection.patience:.0f} s: {reason}"
            raise BusyError(msg)

    try:
        connection.retry(attempt)
    except connection.server.client_errors as error:
        if getattr(error, "status_code", None) != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        conflicts += _write_in_halves(connection, remaining, counts)
    return conflicts


def _write_in_halves(connection: Connection, items: list[_Item], counts: RewriteCounts) -> list[StoredDocument]:
    """Write documents that together are larger than a request may be (HTTP 413)."""
    if len(items) == 1:
        counts.fail(Failure(items[0][0].id, "it is larger than a request may be"))
        return []
    half = len(items) // 2
    return [*_write(connection, items[:half], counts), *_write(connection, items[half:], counts)]


def _same_sequence_number(document: StoredDocument) -> dict[str, Any]:
    """Return the condition that nobody has written a document since it was read."""
    return {"if_seq_no": document.seq_no, "if_primary_term": document.primary_term}


def _same_version(document: StoredDocument) -> dict[str, Any]:
    """Return the condition that a document has no newer version than when it was read, and its version again."""
    return {"version": document.version, "version_type": "external_gte"}


def _reason(error: Mapping[str, Any]) -> str:
    cause = error.get("caused_by", {}).get("reason")
    return f"{error['reason']}: {cause}" if cause else str(error["reason"])


def _read_again(connection: Connection, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
    """Return documents as they are now, without those that are gone."""
    found: list[StoredDocument] = []
    for index in {document.index for document in documents}:
        ids = [document.id for document in documents if document.index == index]
        body = {**scan_request(connection, {"ids": {"values": ids}}), "size": len(ids)}
        found += connection.retry(partial(_search_again, connection, index, body)).hits
    return found


def _search_again(connection: Connection, index: str, body: dict[str, Any]) -> Hits:
    connection.client.indices.refresh(index=index)
    return hits_of(connection.search(index=index, body=body))
