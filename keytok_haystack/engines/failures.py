# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What an engine answers when it cannot do what it is asked, in one sentence without credentials."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from haystack.document_stores.errors import DocumentStoreError


class ClauseLimitError(DocumentStoreError):
    """
    A query has more clauses than the engine allows.

    :param limit: How many it allows.
    """

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


@contextmanager
def clear_errors(client_errors: tuple[type[Exception], ...], engine: str, hosts: Any, index: str) -> Iterator[None]:
    """
    Turn the errors of an engine's client into a `DocumentStoreError` that says what is wrong and what to do.

    :param client_errors: What the client raises.
    :param engine: The engine's name.
    :param hosts: Its addresses, as document stores take them.
    :param index: The index in question.
    """
    try:
        yield
    except client_errors as error:
        raise _translated(error, engine, hosts, index) from error


def _translated(error: Exception, engine: str, hosts: Any, index: str) -> DocumentStoreError:
    status = getattr(error, "status_code", None)
    if type(error).__name__ == "UnsupportedProductError":
        return DocumentStoreError(f"The server at {addresses(hosts)} is not {engine}.")
    if "Timeout" in type(error).__name__:
        msg = f"{engine} at {addresses(hosts)} did not answer in time: raise the document store's timeout."
        return DocumentStoreError(msg)
    if not isinstance(status, int):
        reason = str(error).partition(" caused by: ")[0]
        msg = f"{engine} at {addresses(hosts)} cannot be reached: {reason}. Is it running, and is the address right?"
        return DocumentStoreError(msg)
    return failure(status, _answer(error), engine, hosts, index)


def is_transient(error: BaseException) -> bool:
    """Whether an error of an engine's client may be gone after a while: the engine is away, or has too much to do."""
    status = getattr(error, "status_code", None)
    return is_transient_status(status) if isinstance(status, int) else "Connection" in type(error).__name__


def is_transient_status(status: int) -> bool:
    """Whether it is one of an engine with too much to do, or with a node that has just died (HTTP 500)."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _answer(error: Exception) -> Mapping[str, Any]:
    """Return the body of an answer; empty if it is not the engine's, but a proxy's."""
    body = getattr(error, "body", getattr(error, "info", None))
    if body is None:  # the asynchronous client of OpenSearch does not parse it
        with suppress(ValueError):
            body = json.loads(error.args[1])
    return body if isinstance(body, Mapping) and "error" in body else {}


def failure(status: int, answer: Mapping[str, Any], engine: str, hosts: Any, index: str) -> DocumentStoreError:
    """
    Return the error for an answer of an engine.

    :param status: The HTTP status.
    :param answer: The body of the answer; empty if it is not the engine's.
    """
    place = f"{engine} at {addresses(hosts)}"
    kind, reason = _cause(answer.get("error"))
    if (limit := re.search(r"maxClauseCount is set to (\d+)", reason)) is not None:
        msg = (
            f"{place} refused the query: {reason}. Ask with fewer tokens, words or conditions of filters, or raise "
            "indices.query.bool.max_clause_count."
        )
        return ClauseLimitError(msg, int(limit[1]))
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and kind in ("", "security_exception")):
        msg = f"{place} refused the credentials (HTTP {status}): check them, and what they are allowed to do."
    elif status == HTTPStatus.NOT_FOUND:
        return missing_index(engine, hosts, index)
    else:
        msg = f"{place} failed on the index '{index}' with HTTP status {status}: {reason}."
    if "index.knn" in reason or "knn_vector" in reason:
        msg += " Dense vectors need the k-NN plugin; `keytok mapping --no-dense` leaves them out."
    return DocumentStoreError(msg)


def missing_index(engine: str, hosts: Any, index: str) -> DocumentStoreError:
    """Return the error for an index that does not exist."""
    msg = (
        f"{engine} at {addresses(hosts)} has no index '{index}': create it with `keytok mapping --create`, or write "
        "documents."
    )
    return DocumentStoreError(msg)


def _cause(error: Any) -> tuple[str, str]:
    """Return the type and the reason of what went wrong, the reason in one line."""
    if isinstance(error, Mapping):
        root = (error.get("root_cause") or [error])[0]
        kind = root.get("type", "")
        reason = root.get("reason") or error.get("reason") or kind
    else:
        kind, reason = "", error or "no reason given"
    return kind, str(reason).partition("\n")[0].rstrip(".")


def addresses(hosts: Any) -> str:
    """Return the addresses of a document store's hosts without credentials."""
    return ", ".join(_address(host) for host in (hosts if isinstance(hosts, list | tuple) else [hosts]))


def _address(host: Any) -> str:
    if isinstance(host, Mapping):
        return f"{host.get('scheme', 'http')}://{host.get('host', 'localhost')}:{host.get('port', 9200)}"
    scheme, _, rest = str(host or "localhost:9200").rpartition("://")
    # all up to the last @, since a password may hold what a parser would take for the end of it
    return f"{scheme or 'http'}://{rest.rpartition('@')[2]}"
