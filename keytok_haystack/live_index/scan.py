# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Documents of an index, read page by page as the engine has stored them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import msgspec
from haystack.document_stores.errors import DocumentStoreError

from keytok_haystack.engines import MappingError
from keytok_haystack.engines.connection import Connection
from keytok_haystack.engines.json_text import elements, members

PAGE = 500
_KEEP_ALIVE = "10m"  # from one page to the next


class StoredDocument(msgspec.Struct, frozen=True, rename=lambda name: f"_{name}"):
    """
    A document as an engine returns it.

    :param source: Its fields, as they are spelled in `_source`.
    :param sort: Its place in the order of a scan.
    """

    id: str
    index: str
    seq_no: int
    primary_term: int
    source: dict[str, msgspec.Raw] = {}
    routing: str | None = None
    sort: list[Any] = msgspec.field(default_factory=list, name="sort")


class LostScanError(DocumentStoreError):
    """A scan cannot go on, since the engine has gone away or a part of an answer is missing."""


class Hits(msgspec.Struct):
    hits: list[StoredDocument]
    total: dict[str, Any] = {}


def check_sources(live: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Refuse an index whose documents cannot be read as they were written.

    :param live: What `mappings_of` returns.
    :raises MappingError: The mapping leaves `_source` or a part of it out, which would be lost by writing back.
    """
    for name, mappings in live.items():
        source = mappings.get("_source", {})
        if source.get("enabled") is False or source.get("excludes") or source.get("includes"):
            msg = (
                f"The index '{name}' does not keep whole documents (`_source` in its mapping): what it leaves out "
                "cannot be read, and writing a document back would lose it. Index the documents anew, with "
                "KeyTokenSparseEmbedder in the pipeline."
            )
            raise MappingError(msg)


@contextmanager
def scan(
    connection: Connection, query: Mapping[str, Any], *, fields: Sequence[str] | None = None, by_score: bool = False
) -> Iterator[tuple[int, Iterator[list[StoredDocument]]]]:
    """
    Read documents page by page, as they are at this moment.

    :param query: Which documents to read.
    :param fields: Which of their fields to read; all by default.
    :param by_score: Whether to begin with those that match the query best.
    :returns: How many documents there are, and pages of them, which raise a `LostScanError` where they cannot go on.
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
"""The first page, and what returns the page behind a document."""


@contextmanager
def _point_in_time(connection: Connection, body: Mapping[str, Any], order: str | None) -> Iterator[_Cursor]:
    """
    Read OpenSearch as it is at one point in time.

    Never by a scroll: the end of one makes an index with dense vectors unusable there until it is closed or the node is
    started again (OpenSearch 3.5, issue 20622, where the k-NN plugin leaves vectors out of the stored documents).
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
        return hits_of(client.search(body=page, allow_partial_search_results=False))

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
        with suppress(*connection.adapter.client_errors):
            client.delete_pit(body={"pit_id": [pit]})


@contextmanager
def _scroll(connection: Connection, body: Mapping[str, Any], order: str | None) -> Iterator[_Cursor]:
    """Read Elasticsearch by a scroll, which every version has."""
    client = connection.client
    request = {**body, "sort": [order or "_doc"]}
    answer = connection.retry(
        lambda: client.search(
            index=connection.index, body=request, scroll=_KEEP_ALIVE, allow_partial_search_results=False
        )
    )

    def ask(_: StoredDocument) -> Hits:
        nonlocal answer
        with _raising_lost_scan(connection, connection.is_transient):
            # never asked for again: a scroll has passed by the page of an answer that was lost
            answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": _KEEP_ALIVE})
        if answer["_shards"]["failed"]:
            raise LostScanError(_lost(connection))
        return hits_of(answer)

    try:
        yield hits_of(answer), ask
    finally:
        with suppress(*connection.adapter.client_errors):
            client.clear_scroll(body={"scroll_id": answer["_scroll_id"]})


def hits_of(answer: Any) -> Hits:
    """Return the hits of a search whose client leaves them as bytes."""
    try:
        return msgspec.json.decode(answer["hits"], type=Hits)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _cut_hits(bytes(answer["hits"]).decode())


def _cut_hits(text: str) -> Hits:
    """Return hits that msgspec refuses to read."""
    parts = members(text)
    found = []
    for hit in map(members, elements(parts["hits"])):
        about = {name: json.loads(value) for name, value in hit.items() if name != "_source"}
        source = {name: msgspec.Raw(value.encode()) for name, value in members(hit.get("_source", "{}")).items()}
        found.append(
            StoredDocument(
                id=about["_id"],
                index=about["_index"],
                seq_no=about["_seq_no"],
                primary_term=about["_primary_term"],
                source=source,
                routing=about.get("_routing"),
                sort=about.get("sort", []),
            )
        )
    return Hits(found, json.loads(parts.get("total", "{}")))


@contextmanager
def _raising_lost_scan(connection: Connection, is_lost: Callable[[Exception], bool]) -> Iterator[None]:
    """Raise a `LostScanError` where the engine does not know the scan any more, or an error means as much."""
    try:
        yield
    except connection.adapter.client_errors as error:
        if getattr(error, "status_code", None) == HTTPStatus.NOT_FOUND or is_lost(error):
            raise LostScanError(_lost(connection)) from error
        raise


def _is_broken(error: Exception) -> bool:
    """Whether a point in time has died with one of its nodes."""
    return getattr(error, "status_code", None) == HTTPStatus.INTERNAL_SERVER_ERROR


def _lost(connection: Connection) -> str:
    return f"{connection.engine} has lost the scan of the index '{connection.index}': begin again."


def scan_request(
    connection: Connection, query: Mapping[str, Any], fields: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the body of a search that returns documents as they are stored, vectors included."""
    source: dict[str, Any] = {} if fields is None else {"includes": list(fields)}
    if connection.retry(lambda: connection.adapter.leaves_vectors_out(connection.client, connection.index)):
        source["exclude_vectors"] = False
    return {"query": query, "_source": source or True, "seq_no_primary_term": True, "track_total_hits": True}
