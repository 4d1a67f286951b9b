# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Documents of an index as the engine has stored them, read and written back with a field changed.

A document is written back whole, its other fields byte for byte as they were read. So its field is replaced, never
merged as a partial update would do, and no scripts are needed. It is written only where it is still as it was read
(optimistic concurrency, by sequence number and primary term).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from haystack import logging
from haystack.document_stores.errors import DocumentStoreError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tqdm import tqdm

from haystack_integrations.components.retrievers.keytok.adapters.failures import TRANSIENT
from keytok_haystack.engines import MappingError
from keytok_haystack.indices.connection import BusyError, Connection
from keytok_haystack.indices.mapping import leaves_vectors_out, mappings_of

logger = logging.getLogger(__name__)

PAGE = 500
_WORKERS = 2
_LARGEST_REQUEST = 8_000_000  # bytes; hosted engines refuse 10 MB
_KEEP_ALIVE = "10m"  # from one page to the next
_ATTEMPTS = 5
_KEPT_FAILURES = 1000


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


@dataclass(frozen=True)
class Failure:
    """A document that could not be changed, and why."""

    id: str
    reason: str


Change = dict[str, msgspec.Raw] | Failure | str
"""What becomes of a document: its new source, a failure, or the reason why it is left alone."""


@dataclass
class Outcome:
    """
    What has become of documents.

    :param read: How many were read.
    :param written: How many were written.
    :param left: How many were left alone, by the reason.
    :param failed: How many could not be changed.
    :param failures: The first 1,000 of those.
    """

    read: int = 0
    written: int = 0
    left: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def forget_all_but_written(self) -> None:
        """Begin to count again, for documents that are read again."""
        self.read, self.left, self.failed, self.failures = 0, Counter(), 0, []

    def add(self, other: "Outcome") -> None:
        """Add what has become of further documents."""
        self.read += other.read
        self.written += other.written
        self.left += other.left
        self.failed += other.failed
        self.failures += other.failures[: _KEPT_FAILURES - len(self.failures)]


class LostScanError(DocumentStoreError):
    """A scan cannot go on, since the engine has gone away or a part of an answer is missing."""


class _Hits(msgspec.Struct):
    hits: list[StoredDocument]
    total: dict[str, Any] = {}


def check_sources(connection: Connection) -> None:
    """
    Refuse an index whose documents cannot be read as they were written.

    :raises MappingError: The mapping leaves `_source` or a part of it out, which would be lost by writing back.
    """
    for name, mappings in mappings_of(connection).items():
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
    body = {**_request(connection, query, fields), "size": PAGE}
    cursor = _point_in_time if connection.engine == "opensearch" else _scroll
    with cursor(connection, body, "_score" if by_score else None) as ask:
        first = ask(None)
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


_Ask = Callable[[StoredDocument | None], _Hits]
"""Returns the page behind a document, or the first."""


@contextmanager
def _point_in_time(connection: Connection, body: Mapping[str, Any], order: str | None) -> Iterator[_Ask]:
    """
    Read OpenSearch as it is at one point in time.

    Never by a scroll: the end of one makes an index with dense vectors unusable there until it is closed or the node is
    started again (OpenSearch 3.5, issue 20622, where the k-NN plugin leaves vectors out of the stored documents).
    """
    client = connection.client
    opened = connection.retry(lambda: client.create_pit(index=connection.index, keep_alive=_KEEP_ALIVE))
    request = {
        **body,
        "pit": {"id": opened["pit_id"], "keep_alive": _KEEP_ALIVE},
        "sort": [*([order] if order else []), "_shard_doc"],
    }

    def ask(last: StoredDocument | None) -> _Hits:
        page = request if last is None else {**request, "search_after": last.sort, "track_total_hits": False}
        with _told_when_lost(connection):
            answer = connection.retry(lambda: client.search(body=page, allow_partial_search_results=False))
        return msgspec.json.decode(answer["hits"], type=_Hits)

    try:
        yield ask
    finally:
        with suppress(*connection.client_errors):
            client.delete_pit(body={"pit_id": [opened["pit_id"]]})


@contextmanager
def _scroll(connection: Connection, body: Mapping[str, Any], order: str | None) -> Iterator[_Ask]:
    """Read Elasticsearch by a scroll, which every version has."""
    client = connection.client
    request = {**body, "sort": [order or "_doc"]}
    scroll_id = None

    def begin() -> Any:
        return client.search(
            index=connection.index, body=request, scroll=_KEEP_ALIVE, allow_partial_search_results=False
        )

    def ask(last: StoredDocument | None) -> _Hits:
        nonlocal scroll_id
        if last is None:
            answer = connection.retry(begin)
        else:
            with _told_when_lost(connection, connection.is_transient):
                # never asked for again: the page of an answer that was lost is passed by
                answer = client.scroll(body={"scroll_id": scroll_id, "scroll": _KEEP_ALIVE})
            if answer["_shards"]["failed"]:
                raise LostScanError(_lost(connection))
        scroll_id = answer["_scroll_id"]
        return msgspec.json.decode(answer["hits"], type=_Hits)

    try:
        yield ask
    finally:
        with suppress(*connection.client_errors):
            client.clear_scroll(body={"scroll_id": scroll_id})


@contextmanager
def _told_when_lost(connection: Connection, is_lost: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
    """Raise a `LostScanError` where the engine does not know the scan any more, or for another reason."""
    try:
        yield
    except connection.client_errors as error:
        if getattr(error, "status_code", None) == HTTPStatus.NOT_FOUND or is_lost(error):
            raise LostScanError(_lost(connection)) from error
        raise


def _lost(connection: Connection) -> str:
    return f"{connection.engine} has lost the scan of the index '{connection.index}': begin again."


def _request(connection: Connection, query: Mapping[str, Any], fields: Sequence[str] | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {} if fields is None else {"includes": list(fields)}
    if leaves_vectors_out(connection):
        source["exclude_vectors"] = False
    return {"query": query, "_source": source or True, "seq_no_primary_term": True, "track_total_hits": True}


def rewrite(
    connection: Connection,
    change: Callable[[Sequence[StoredDocument]], list[Change]],
    *,
    description: str,
    progress_bar: bool,
) -> Outcome:
    """
    Change the documents of an index that keeps them whole (`check_sources`), while others may read and write them.

    Memory holds a few pages of documents. Where the engine is away or busy it is waited for; where it has lost the
    scan, documents are read from the beginning again. What is written stays written if this ends early.

    :param change: Returns what becomes of the documents of a page. It is asked again about a document that others have
        changed since it was read, from several threads, and must leave alone what is as it should be.
    :param description: What the progress bar is called.
    :param progress_bar: Whether to show a progress bar.
    :raises DocumentStoreError: The engine stays away, or the index cannot be written.
    """
    identity = _identity(connection)
    outcome = Outcome()
    attempts = Retrying(
        retry=retry_if_exception_type(LostScanError),
        stop=stop_after_attempt(_ATTEMPTS),
        before_sleep=lambda _: logger.warning("{engine} has lost the scan: it begins again.", engine=connection.engine),
        reraise=True,
    )
    with tqdm(desc=description, unit=" documents", disable=not progress_bar) as progress:
        try:
            attempts(_rewrite_once, connection, identity, change, outcome, progress)
        except BaseException:
            if outcome.written:
                written = f"{outcome.written:,}"
                logger.warning("{written} documents were written, and stay so: run it again to go on.", written=written)
            raise
    return outcome


def _rewrite_once(
    connection: Connection,
    identity: dict[str, str],
    change: Callable[[Sequence[StoredDocument]], list[Change]],
    outcome: Outcome,
    progress: Any,
) -> None:
    outcome.forget_all_but_written()
    in_flight: deque[Future[Outcome]] = deque()

    def finish_one() -> None:
        done = in_flight.popleft().result()
        outcome.add(done)
        progress.update(done.read)

    _check_identity(connection, identity)
    connection.retry(lambda: connection.client.indices.refresh(index=connection.index))  # or a scan would not see all
    with scan(connection, {"match_all": {}}) as (total, pages), ThreadPoolExecutor(_WORKERS) as workers:
        progress.reset(total)
        try:
            for page in pages:
                in_flight.append(workers.submit(_rewrite_page, connection, page, change))
                if len(in_flight) > _WORKERS:
                    finish_one()
        finally:
            while in_flight:
                finish_one()
    _check_identity(connection, identity)


def _rewrite_page(
    connection: Connection,
    page: Sequence[StoredDocument],
    change: Callable[[Sequence[StoredDocument]], list[Change]],
) -> Outcome:
    outcome = Outcome(read=len(page))
    for _ in range(_ATTEMPTS):
        changed: list[tuple[StoredDocument, dict[str, msgspec.Raw]]] = []
        for document, what in zip(page, change(page), strict=True):
            if isinstance(what, Failure):
                outcome.add(Outcome(failed=1, failures=[what]))
            elif isinstance(what, str):
                outcome.left[what] += 1
            else:
                changed.append((document, what))
        conflicts = [document for part in _parts(changed) for document in _write(connection, part, outcome)]
        if not conflicts:
            return outcome
        page = _read_again(connection, conflicts)
    reason = f"others have changed it {_ATTEMPTS} times while it was to be written"
    outcome.add(Outcome(failed=len(page), failures=[Failure(document.id, reason) for document in page]))
    return outcome


_Item = tuple[StoredDocument, str]


def _parts(changed: Sequence[tuple[StoredDocument, dict[str, msgspec.Raw]]]) -> Iterator[list[_Item]]:
    """Cut what is to be written into requests of a size that engines take."""
    part: list[_Item] = []
    size = 0
    for document, source in changed:
        line = msgspec.json.encode(source).decode()
        if part and size + len(line) > _LARGEST_REQUEST:
            yield part
            part, size = [], 0
        part.append((document, line))
        size += len(line)
    if part:
        yield part


def _write(connection: Connection, items: list[_Item], outcome: Outcome) -> list[StoredDocument]:
    """Write documents that are still as they were read, and return those that are not."""
    conflicts: list[StoredDocument] = []
    remaining = items

    def attempt() -> None:
        nonlocal remaining
        lines = [line for document, source in remaining for line in (_action(document), source)]
        # `_none`: what the index's own pipeline does has been done when the document was first written
        answer = connection.client.bulk(body=lines, pipeline="_none")
        busy: list[_Item] = []
        reason = ""
        for (document, source), result in zip(remaining, answer["items"], strict=True):
            status, error = result["index"]["status"], result["index"].get("error")
            if error is None:
                outcome.written += 1
            elif error["type"] == "cluster_block_exception":
                msg = f"The index '{document.index}' cannot be written: {error['reason']}"
                raise DocumentStoreError(msg)
            elif status == HTTPStatus.CONFLICT:
                conflicts.append(document)
            elif status in TRANSIENT:
                busy.append((document, source))
                reason = error["reason"]
            else:
                outcome.add(Outcome(failed=1, failures=[Failure(document.id, _reason(error))]))
        remaining = busy
        if busy:
            msg = f"{connection.engine} has turned documents away for {connection.patience:.0f} s: {reason}"
            raise BusyError(msg)

    connection.retry(attempt)
    return conflicts


def _action(document: StoredDocument) -> str:
    action = {
        "_index": document.index,
        "_id": document.id,
        "if_seq_no": document.seq_no,
        "if_primary_term": document.primary_term,
    }
    if document.routing is not None:
        action["routing"] = document.routing
    return msgspec.json.encode({"index": action}).decode()


def _reason(error: Mapping[str, Any]) -> str:
    cause = error.get("caused_by", {}).get("reason")
    return f"{error['reason']}: {cause}" if cause else str(error["reason"])


def _read_again(connection: Connection, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
    """Return documents as they are now, without those that are gone."""
    wanted = {(document.index, document.id) for document in documents}
    query = {"ids": {"values": [document.id for document in documents]}}
    body = {**_request(connection, query), "size": 10_000}

    def search() -> Any:
        connection.client.indices.refresh(index=connection.index)
        return connection.client.search(index=connection.index, body=body, allow_partial_search_results=False)

    found = msgspec.json.decode(connection.retry(search)["hits"], type=_Hits).hits
    return [document for document in found if (document.index, document.id) in wanted]


def _check_identity(connection: Connection, identity: dict[str, str]) -> None:
    """Refuse an index that has taken the place of the one that is read: writing to a deleted one makes it anew."""
    if _identity(connection) != identity:
        msg = f"The index '{connection.index}' was deleted or made anew meanwhile."
        raise DocumentStoreError(msg)


def _identity(connection: Connection) -> dict[str, str]:
    """Return what tells an index from another one of the same name."""
    described = connection.retry(
        lambda: connection.client.indices.get_settings(index=connection.index, flat_settings=True)
    )
    return {name: settings["settings"]["index.uuid"] for name, settings in described.items()}
