# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Changes of stored documents, and counts of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from keytok_haystack.live_index.documents import StoredDocument

_MAX_FAILURES = 1000


@dataclass(frozen=True)
class Rewritten:
    """
    New content of a document.

    :param source: All fields of the document, each as JSON.
    """

    source: dict[str, msgspec.Raw]


class Skipped(Enum):
    """Reason to leave a document as it is."""

    UP_TO_DATE = "up to date"
    WITHOUT_EMBEDDING = "without embedding"


@dataclass(frozen=True)
class Failure:
    """
    Document that cannot be changed.

    :param id: Id of the document.
    :param reason: Reason of the failure.
    """

    id: str
    reason: str


Change = Rewritten | Skipped | Failure
Changer = Callable[[Sequence[StoredDocument]], list[Change]]
"""Function that returns the change of each document of a page."""


@dataclass(frozen=True)
class RewriteReport:
    """
    Result of rewriting the documents of an index.

    :param documents: Number of documents of the index.
    :param written: Number of documents that were written.
    :param already: Number of documents that were up to date.
    :param without_embedding: Number of documents that have no embedding and were left alone.
    :param failed: Number of documents that could not be changed.
    :param failures: The first 1,000 of those, with reasons.
    :param warnings: What the rewrite has changed for others, or left undone, a sentence each.
    :param seconds: Duration in seconds.
    """

    documents: int
    written: int
    already: int
    without_embedding: int
    failed: int
    failures: list[Failure]
    warnings: list[str]
    seconds: float


@dataclass
class RewriteCounts:
    """
    Running counts of a rewrite.

    :param read: Number of documents read.
    :param written: Number of documents written.
    :param skipped: Numbers of documents left as they are, by reason.
    :param failed: Number of documents that could not be changed.
    :param failures: The first 1,000 of those, with reasons.
    """

    read: int = 0
    written: int = 0
    skipped: Counter[Skipped] = field(default_factory=Counter)
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def fail(self, *failures: Failure) -> None:
        """Count documents that could not be changed."""
        self.failed += len(failures)
        self.failures += failures[: _MAX_FAILURES - len(self.failures)]

    def add(self, other: "RewriteCounts") -> None:
        """Add the counts of further documents."""
        self.read += other.read
        self.written += other.written
        self.skipped += other.skipped
        self.failed += other.failed
        self.failures += other.failures[: _MAX_FAILURES - len(self.failures)]

    def restart(self) -> None:
        """Reset all counts but that of written documents, for a scan that starts from the beginning again."""
        self.read, self.skipped, self.failed, self.failures = 0, Counter(), 0, []

    def report(self, warnings: list[str], seconds: float) -> RewriteReport:
        """Return the counts as the result of a rewrite, with its warnings and its duration in seconds."""
        return RewriteReport(
            documents=self.read,
            written=self.written,
            already=self.skipped[Skipped.UP_TO_DATE],
            without_embedding=self.skipped[Skipped.WITHOUT_EMBEDDING],
            failed=self.failed,
            failures=self.failures,
            warnings=warnings,
            seconds=seconds,
        )
