# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Failures of engines: one sentence each without credentials, and which of them may be gone after a while."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from haystack.document_stores.errors import DocumentStoreError


@dataclass(frozen=True)
class Location:
    """
    Location of an index, for messages.

    :param engine: Name of the engine.
    :param hosts: Addresses of the server, as document stores take them.
    :param index: Name of the index.
    """

    engine: str
    hosts: Any
    index: str

    def __str__(self) -> str:
        return f"{self.engine} at {addresses(self.hosts)}"


class ClauseLimitError(DocumentStoreError):
    """
    A query with more clauses than the engine allows.

    :param message: Message of the error.
    :param limit: Number of clauses that the engine allows.
    """

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


@contextmanager
def clear_errors(client_errors: tuple[type[Exception], ...], location: Location) -> Iterator[None]:
    """
    Turn the errors of an engine's client into a `DocumentStoreError` that says what is wrong and what to do.

    :param client_errors: Errors that the client raises.
    :param location: Location of the index that requests are for.
    """
    try:
        yield
    except client_errors as error:
        raise _translated(error, location) from error


def _translated(error: Exception, location: Location) -> DocumentStoreError:
    status = getattr(error, "status_code", None)
    if type(error).__name__ == "UnsupportedProductError":
        return DocumentStoreError(f"The server at {addresses(location.hosts)} is not {location.engine}.")
    if type(error).__name__ in ("SSLError", "TlsError"):
        # one client has the reason in its message, the other beside it
        return DocumentStoreError(_distrust(f"{error} {error.args}", location))
    if "Timeout" in type(error).__name__:
        return DocumentStoreError(f"{location} did not answer in time: raise the document store's timeout.")
    if not isinstance(status, int):
        reason = str(error).partition(" caused by: ")[0]
        msg = f"{location} cannot be reached: {reason}. Is it running, and is the address right?"
        return DocumentStoreError(msg)
    return failure(status, _answer(error), location)


def _distrust(reason: str, location: Location) -> str:
    """Return what to do about a server that has not proved who it is."""
    certificate = re.search(r"certificate verify failed: ([^()]+)", reason) or re.search(
        r"(hostname '[^']*' doesn't match '[^']*')", reason
    )
    if certificate is None:
        return f"{location} did not answer over TLS ({_shortened(reason)}): does its address begin with http://?"
    return (
        f"{location} has not proved who it is ({certificate[1].strip(' .')}): name its certificate authority with "
        "--ca-cert, in Python `ca_certs` of the document store, or trust anyone with --insecure, `verify_certs=False`."
    )


def _shortened(reason: str) -> str:
    """Return the part of a TLS error in brackets, as `[SSL: WRONG_VERSION_NUMBER] wrong version number`, or all."""
    inner = re.search(r"\[SSL[^\]]*\] ([^()]+)", reason)
    return inner[1].strip() if inner else reason.partition(" caused by: ")[0]


def is_transient(error: BaseException) -> bool:
    """Return whether an error of an engine's client may be gone after a while: the engine is away or overloaded."""
    status = getattr(error, "status_code", None)
    return is_transient_status(status) if isinstance(status, int) else "Connection" in type(error).__name__


def is_transient_status(status: int) -> bool:
    """Return whether an HTTP status is that of an overloaded engine, or of one whose node has just died (500)."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _answer(error: Exception) -> Mapping[str, Any]:
    """Return the body of an answer; empty if it comes from a proxy instead of the engine."""
    body = getattr(error, "body", getattr(error, "info", None))
    if body is None:  # the asynchronous client of OpenSearch does not parse it
        with suppress(ValueError):
            body = json.loads(error.args[1])
    return body if isinstance(body, Mapping) and "error" in body else {}


def failure(status: int, answer: Mapping[str, Any], location: Location) -> DocumentStoreError:
    """
    Return the error for an answer of an engine.

    :param status: HTTP status of the answer.
    :param answer: Body of the answer; empty if it comes from a proxy instead of the engine.
    :param location: Location of the index that the request was for.
    """
    kind, reason = _cause(answer.get("error"))
    if (limit := re.search(r"maxClauseCount is set to (\d+)", reason)) is not None:
        msg = (
            f"{location} refused the query: {reason}. Use fewer tokens, words or filter conditions, or raise "
            "indices.query.bool.max_clause_count."
        )
        return ClauseLimitError(msg, int(limit[1]))
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and kind in ("", "security_exception")):
        msg = f"{location} refused the credentials (HTTP {status}): check them and their permissions."
    elif status == HTTPStatus.NOT_FOUND:
        return missing_index(location)
    else:
        msg = f"{location} failed on the index '{location.index}' with HTTP status {status}: {reason}."
    if "index.knn" in reason or "knn_vector" in reason:
        msg += " Dense vectors need the k-NN plugin; `keytok mapping --no-dense` leaves them out."
    return DocumentStoreError(msg)


def missing_index(location: Location) -> DocumentStoreError:
    """Return the error for an index that does not exist."""
    msg = f"{location} has no index '{location.index}': create it with `keytok mapping --create`, or write documents."
    return DocumentStoreError(msg)


def _cause(error: Any) -> tuple[str, str]:
    """Return the type of an error and its reason in one line."""
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
        if "cloud_id" in host:  # NAME:BASE64
            return f"the deployment '{str(host['cloud_id']).partition(':')[0]}' of Elastic Cloud"
        return f"{host.get('scheme', 'http')}://{host.get('host', 'localhost')}:{host.get('port', 9200)}"
    scheme, _, rest = str(host or "localhost:9200").rpartition("://")
    # everything up to the last @, since a parser might take a part of the password for its end
    return f"{scheme or 'http'}://{rest.rpartition('@')[2]}"
