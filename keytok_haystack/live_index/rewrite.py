# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from haystack import logging
from haystack.document_stores.errors import DocumentStoreError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tqdm import tqdm

from keytok_haystack.engines.connection import BusyError, Connection
from keytok_haystack.engines.failures import is_transient_status
from keytok_haystack.live_index.scan import Hits, LostScanError, StoredDocument, hits_of, scan, scan_request

logger = logging.getLogger(__name__)
_WORKERS = 2
_LARGEST_REQUEST = 8_000_000  # bytes; hosted engines refuse 10 MB
_FRUITLESS_SCANS = 10
_LONGEST_WAIT = 15.0  # seconds
_ROUNDS = 5
_KEPT_FAILURES = 1000


@dataclass(frozen=True)
class Failure:
    """A document that could not be changed, and why."""

    id: str
    reason: str


Change = dict[str, msgspec.Raw] | Failure | str
"""What becomes of a document: its new source, a failure, or the reason why it is left alone."""
AS_IT_SHOULD_BE = "as it should be"


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
    written_before = 0  # of the scans that were lost
    fruitless = 0

    def gives_up(_: RetryCallState) -> bool:
        nonlocal written_before, fruitless
        fruitless = 0 if outcome.written > written_before else fruitless + 1
        written_before = outcome.written
        return fruitless == _FRUITLESS_SCANS

    attempts = Retrying(
        retry=retry_if_exception_type(LostScanError),
        wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_WAIT),
        stop=gives_up,
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
    outcome.left[AS_IT_SHOULD_BE] -= min(written_before, outcome.left[AS_IT_SHOULD_BE])  # not to be counted twice
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
        except LostScanError:
            while in_flight:
                finish_one()
            raise
        except BaseException:
            for writing in in_flight:
                writing.cancel()
            raise
        while in_flight:
            finish_one()
    _check_identity(connection, identity)


def _rewrite_page(
    connection: Connection,
    page: Sequence[StoredDocument],
    change: Callable[[Sequence[StoredDocument]], list[Change]],
) -> Outcome:
    outcome = Outcome(read=len(page))
    for _ in range(_ROUNDS):
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
    reason = f"others have changed it {_ROUNDS} times while it was to be written"
    outcome.add(Outcome(failed=len(page), failures=[Failure(document.id, reason) for document in page]))
    return outcome


_Item = tuple[StoredDocument, str]
"""A document, and the lines that write it."""


def _parts(changed: Sequence[tuple[StoredDocument, dict[str, msgspec.Raw]]]) -> Iterator[list[_Item]]:
    """Cut what is to be written into requests of a size that engines take."""
    part: list[_Item] = []
    size = 0
    for document, source in changed:
        # a line ends a document there; in JSON it is only white space, since strings have it escaped
        lines = _action(document) + b"\n" + msgspec.json.encode(source).replace(b"\n", b" ").replace(b"\r", b" ")
        if part and size + len(lines) > _LARGEST_REQUEST:
            yield part
            part, size = [], 0
        part.append((document, lines.decode()))
        size += len(lines) + 1
    if part:
        yield part


def _write(connection: Connection, items: list[_Item], outcome: Outcome) -> list[StoredDocument]:
    """Write documents that are still as they were read, and return those that are not."""
    conflicts: list[StoredDocument] = []
    remaining = items

    def attempt() -> None:
        nonlocal remaining
        # `_none`: what the index's own pipeline does has been done when the document was first written
        answer = connection.client.bulk(body=[lines for _, lines in remaining], pipeline="_none")
        busy: list[_Item] = []
        reason = ""
        for item, result in zip(remaining, answer["items"], strict=True):
            error, status = result["index"].get("error"), result["index"]["status"]
            if error is None:
                outcome.written += 1
            elif status == HTTPStatus.CONFLICT:
                conflicts.append(item[0])
            elif error["type"] == "cluster_block_exception" and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                msg = f"The index '{item[0].index}' cannot be written: {error['reason']}"
                raise DocumentStoreError(msg)
            elif is_transient_status(status):
                busy.append(item)
                reason = error["reason"]
            else:
                outcome.add(Outcome(failed=1, failures=[Failure(item[0].id, _reason(error))]))
        remaining = busy
        if busy:
            msg = f"{connection.engine} has turned documents away for {connection.patience:.0f} s: {reason}"
            raise BusyError(msg)

    try:
        connection.retry(attempt)
    except connection.adapter.client_errors as error:
        if getattr(error, "status_code", None) != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        conflicts += _write_in_halves(connection, remaining, outcome)
    return conflicts


def _write_in_halves(connection: Connection, items: list[_Item], outcome: Outcome) -> list[StoredDocument]:
    """Write documents that together are larger than a request may be (HTTP 413)."""
    if len(items) == 1:
        outcome.add(Outcome(failed=1, failures=[Failure(items[0][0].id, "it is larger than a request may be")]))
        return []
    half = len(items) // 2
    return [*_write(connection, items[:half], outcome), *_write(connection, items[half:], outcome)]


def _action(document: StoredDocument) -> bytes:
    action = {
        "_index": document.index,
        "_id": document.id,
        "if_seq_no": document.seq_no,
        "if_primary_term": document.primary_term,
    }
    if document.routing is not None:
        action["routing"] = document.routing
    return msgspec.json.encode({"index": action})


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
    return hits_of(connection.client.search(index=index, body=body, allow_partial_search_results=False))


def _check_identity(connection: Connection, identity: dict[str, str]) -> None:
    """Refuse an index that has taken the place of the one that is read: writing to a deleted one makes it anew."""
    if not identity.items() <= _identity(connection).items():
        msg = f"The index '{connection.index}' was deleted or made anew meanwhile."
        raise DocumentStoreError(msg)


def _identity(connection: Connection) -> dict[str, str]:
    """Return what tells an index from another one of the same name."""
    described = connection.retry(
        lambda: connection.client.indices.get_settings(index=connection.index, flat_settings=True)
    )
    return {name: settings["settings"]["index.uuid"] for name, settings in described.items()}
