# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Scans: documents of an index, read page by page as the engine has stored them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from haystack.document_stores.errors import DocumentStoreError

from keytok_haystack.engines.connection import Connection
from keytok_haystack.live_index.documents import Hits, StoredDocument, hits_of

PAGE = 500
"""Number of documents of a page."""
_KEEP_ALIVE = "10m"  # from one page to the next


class LostScanError(DocumentStoreError):
    """Scan that cannot go on, since the engine has gone away or a part of an answer is missing."""


@contextmanager
def scan(
    connection: Connection, query: Mapping[str, Any], *, fields: Sequence[str] | None = None, by_score: bool = False
) -> Iterator[tuple[int, Iterator[list[StoredDocument]]]]:
    """
    Read documents page by page, as they are at this moment.

    :param connection: Connection to the index.
    :param query: Query that documents must match.
    :param fields: Fields to read; all by default, and none if empty.
    :param by_score: Whether to begin with the documents that match the query best.
    :returns: Number of documents, and an iterator over pages of them, which raises a `LostScanError` if it cannot go
        on.
    """
    body = {**scan_request(connection, query, fields), "size": PAGE}
    cursor = _point_in_time if connection.engine == "opensearch" else _scroll
    with cursor(connection, body, "_score" if by_score else None) as (first, ask):
        total = first.total["value"]

        def pages() -> Iterator[list[StoredDocument]]:
            page, seen = first.hits, 0
            while page:
                yield page
                seen += len(page)
                page = ask(page[-1]).hits
            if seen < total:
                raise LostScanError(_lost(connection))

        yield total, pages()


_Cursor = tuple[Hits, Callable[[StoredDocument], Hits]]
"""First page of a scan, and a function that returns the page behind a document."""


@contextmanager
def _point_in_time(connection: Connection, body: Mapping[str, Any], order: str | None) -> Iterator[_Cursor]:
    """
    Read OpenSearch as it is at one point in time.

    Scrolls are no alternative: the end of one makes an index with dense vectors unusable there until the index is
    closed or the node is started again (OpenSearch 3.5, issue 20622, where the k-NN plugin leaves vectors out of the
    stored documents).
    """
    client = connection.client
    request = {**body, "sort": [*([order] if order else []), "_index", "_shard_doc"]}

    def begin() -> tuple[str, Hits]:
        pit: str = client.create_pit(index=connection.index, keep_alive=_KEEP_ALIVE, allow_partial_pit_creation=False)[
            "pit_id"
        ]
        return pit, search(pit, {})

    def search(pit: str, changes: dict[str, Any]) -> Hits:
        page = {**request, "pit": {"id": pit, "keep_alive": _KEEP_ALIVE}, **changes}
        return hits_of(connection.search(body=page))

    pit, first = connection.retry(begin)

    def ask(last: StoredDocument) -> Hits:
        behind = {"search_after": last.sort, "track_total_hits": False}

        def once() -> Hits:
            with _raising_lost_scan(connection, _is_broken):
                return search(pit, behind)

        return connection.retry(once)

    try:
        yield first, ask
    finally:
        with suppress(*connection.server.client_errors):
            client.delete_pit(body={"pit_id": [pit]})


@contextmanager
def _scroll(connection: Connection, body: Mapping[str, Any], order: str | None) -> Iterator[_Cursor]:
    """Read Elasticsearch by a scroll, which every version has."""
    client = connection.client
    request = {**body, "sort": [order or "_doc"]}
    answer = connection.retry(lambda: connection.search(index=connection.index, body=request, scroll=_KEEP_ALIVE))

    def ask(_: StoredDocument) -> Hits:
        nonlocal answer
        with _raising_lost_scan(connection, connection.is_transient):
            # never repeated: a scroll has moved beyond the page of an answer that was lost
            answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": _KEEP_ALIVE})
        if answer["_shards"]["failed"]:
            raise LostScanError(_lost(connection))
        return hits_of(answer)

    try:
        yield hits_of(answer), ask
    finally:
        with suppress(*connection.server.client_errors):
            client.clear_scroll(body={"scroll_id": answer["_scroll_id"]})


@contextmanager
def _raising_lost_scan(connection: Connection, is_lost: Callable[[Exception], bool]) -> Iterator[None]:
    """Raise a `LostScanError` if the engine does not know the scan any more, or if an error means as much."""
    try:
        yield
    except connection.server.client_errors as error:
        if getattr(error, "status_code", None) == HTTPStatus.NOT_FOUND or is_lost(error):
            raise LostScanError(_lost(connection)) from error
        raise


def _is_broken(error: Exception) -> bool:
    """Return whether an error means that a point in time has died with one of its nodes."""
    return getattr(error, "status_code", None) == HTTPStatus.INTERNAL_SERVER_ERROR


def _lost(connection: Connection) -> str:
    return f"{connection.server.name} has lost the scan of the index '{connection.index}': begin again."


def scan_request(
    connection: Connection, query: Mapping[str, Any], fields: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the body of a search that returns documents as they are stored, vectors included."""
    source: dict[str, Any] = {} if fields is None else {"includes": list(fields)}
    if connection.retry(lambda: connection.server.leaves_vectors_out(connection.client)):
        source["exclude_vectors"] = False
    return {
        "query": query,
        "_source": False if fields == [] else source or True,
        "seq_no_primary_term": True,
        "version": True,
        "track_total_hits": True,
    }
