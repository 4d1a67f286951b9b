# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Rewriting all documents of an index while others read and write them."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from haystack import logging
from haystack.document_stores.errors import DocumentStoreError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from keytok_haystack.engines.connection import Connection
from keytok_haystack.live_index.changes import Changer, RewriteCounts, Skipped
from keytok_haystack.live_index.page import rewrite_page
from keytok_haystack.live_index.scan import LostScanError, scan
from keytok_haystack.utils.progress import progress_of

logger = logging.getLogger(__name__)
_WORKERS = 2
_FRUITLESS_SCANS = 10
_LONGEST_WAIT = 15.0  # seconds


def rewrite(
    connection: Connection,
    change: Changer,
    *,
    description: str,
    progress_bar: bool,
    shows_change: bool = True,
    keep_versions: bool = False,
) -> RewriteCounts:
    """
    Change the documents of an index that keeps them whole (`inspection_of`), while others read and write them.

    A few pages of documents are in memory at a time. If the engine is away or busy, requests are repeated; if it has
    lost the scan, documents are read from the beginning again. Documents that are written stay written if this ends
    early.

    :param connection: Connection to the index.
    :param change: Function that returns the change of each document of a page. It is called from several threads, again
        for documents that others have changed since they were read, and must skip documents that are up to date, if
        documents show it.
    :param description: Label of the progress bar.
    :param progress_bar: Whether to show a progress bar.
    :param shows_change: Whether documents that are read show the change. If not, a scan that begins again writes all of
        them again, and a few that are lost are enough to give up.
    :param keep_versions: Whether to write documents under the versions that they have, which an outside system sets.
    :returns: Counts of the documents.
    :raises DocumentStoreError: The engine stays away, or the index cannot be written.
    """
    identity = _identity(connection)
    counts = RewriteCounts()
    written_before = 0  # by the scans that were lost
    fruitless = 0

    def is_hopeless(_: RetryCallState) -> bool:
        nonlocal written_before, fruitless
        fruitless = 0 if counts.written > written_before and shows_change else fruitless + 1
        written_before = counts.written
        return fruitless == _FRUITLESS_SCANS

    attempts = Retrying(
        retry=retry_if_exception_type(LostScanError),
        wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_WAIT),
        stop=is_hopeless,
        before_sleep=lambda _: logger.warning(
            "{engine} has lost the scan: beginning again.", engine=connection.server.name
        ),
        reraise=True,
    )
    with progress_of(description, "documents", shown=progress_bar) as progress:
        try:
            attempts(_rewrite_once, connection, identity, change, counts, progress, keep_versions=keep_versions)
        except BaseException:
            if counts.written:
                written = f"{counts.written:,}"
                logger.warning("{written} documents were written, and stay so: run it again to go on.", written=written)
            raise
    # documents of earlier scans were then found up to date, or written again, and are not to be counted twice
    if shows_change:
        counts.skipped[Skipped.UP_TO_DATE] -= min(written_before, counts.skipped[Skipped.UP_TO_DATE])
    else:
        counts.written -= written_before
    return counts


def _rewrite_once(
    connection: Connection,
    identity: dict[str, str],
    change: Changer,
    counts: RewriteCounts,
    progress: Any,
    *,
    keep_versions: bool,
) -> None:
    counts.restart()
    in_flight: deque[Future[RewriteCounts]] = deque()

    def finish_one() -> None:
        done = in_flight.popleft().result()
        counts.add(done)
        progress.update(done.read)

    _check_identity(connection, identity)
    _refresh(connection)  # or a scan would not see all documents
    with scan(connection, {"match_all": {}}) as (total, pages), ThreadPoolExecutor(_WORKERS) as workers:
        progress.reset(total)
        try:
            for page in pages:
                in_flight.append(workers.submit(rewrite_page, connection, page, change, keep_versions=keep_versions))
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
    _refresh(connection)  # so that a search finds what was written, whatever the index's refresh interval


def _refresh(connection: Connection) -> None:
    connection.retry(lambda: connection.client.indices.refresh(index=connection.index))


def _check_identity(connection: Connection, identity: dict[str, str]) -> None:
    """Require the index that was read, not a successor: writing to a deleted index would create it again."""
    if not identity.items() <= _identity(connection).items():
        msg = f"The index '{connection.index}' was deleted or created anew meanwhile."
        raise DocumentStoreError(msg)


def _identity(connection: Connection) -> dict[str, str]:
    """Return the ids that tell indices from others of the same names."""
    described = connection.retry(
        lambda: connection.client.indices.get_settings(index=connection.index, flat_settings=True)
    )
    return {name: settings["settings"]["index.uuid"] for name, settings in described.items()}
