# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What an engine answers when it cannot do what it is asked, in one sentence without credentials."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

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
        body = getattr(error, "body", getattr(error, "info", None))
        answer = body if isinstance(body, Mapping) and "error" in body else {"error": str(error)}
        raise failure(getattr(error, "status_code", None), answer, engine, hosts, index) from error


def failure(status: Any, answer: Mapping[str, Any], engine: str, hosts: Any, index: str) -> DocumentStoreError:
    """
    Return the error for an answer of an engine.

    :param status: The HTTP status; anything but a number if there was no answer.
    :param answer: The body of the answer.
    """
    place, reason = f"{engine} at {_addresses(hosts)}", _reason(answer)
    if not isinstance(status, int):
        msg = f"{place} cannot be reached: {reason}. Is it running, and is the address right?"
    elif (limit := re.search(r"maxClauseCount is set to (\d+)", reason)) is not None:
        return ClauseLimitError(f"{place} refused the query: {reason}.", int(limit[1]))
    elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        msg = f"{place} refused the credentials (HTTP {status}): check them, and what they are allowed to do."
    elif status == HTTPStatus.NOT_FOUND:
        msg = f"{place} has no index '{index}': create it with `keytok mapping --create`, or write documents."
    else:
        msg = f"{place} failed with HTTP status {status}: {reason}."
    return DocumentStoreError(msg)


def _reason(answer: Mapping[str, Any]) -> str:
    error = answer["error"]
    if isinstance(error, Mapping):
        root = (error.get("root_cause") or [error])[0]
        error = root.get("reason") or error.get("reason") or root.get("type", "no reason given")
    return str(error).partition(" caused by: ")[0].rstrip(".")


def _addresses(hosts: Any) -> str:
    return ", ".join(_address(host) for host in (hosts if isinstance(hosts, list | tuple) else [hosts]))


def _address(host: Any) -> str:
    if isinstance(host, Mapping):
        return f"{host.get('scheme', 'http')}://{host.get('host', 'localhost')}:{host.get('port', 9200)}"
    parts = urlsplit(str(host or "http://localhost:9200"))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
