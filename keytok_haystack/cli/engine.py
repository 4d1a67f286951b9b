# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices of OpenSearch and Elasticsearch, reached with the credentials that Haystack's document stores use."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from haystack.document_stores.errors import DocumentStoreError

from haystack_integrations.components.retrievers.keytok.adapters.engine import EngineAdapter
from haystack_integrations.components.retrievers.keytok.adapters.failures import addresses
from keytok_haystack.engines import Engine, MappingError, has_field, key_token_field, merged_meta


@contextmanager
def connected(engine: Engine, url: str, index: str) -> Iterator[Any]:
    """
    Give an engine's client, whose errors become one sentence.

    Credentials are taken from the URL, or from the environment variables that Haystack's document stores read:
    OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, or ELASTIC_API_KEY and ELASTIC_API_KEY_ID.

    :raises ValueError: The engine cannot be reached or cannot do what it is asked.
    """
    adapter, document_store = _store(engine, url, index)
    try:
        with adapter.connected(document_store) as client:
            if engine == "opensearch":
                _check_is_opensearch(client, url)
            yield client
    except DocumentStoreError as error:
        raise ValueError(str(error)) from error


def _check_is_opensearch(client: Any, url: str) -> None:
    """Raise a `ValueError` where Elasticsearch answers, which its own client notices the other way round."""
    if client.info()["version"].get("distribution") != "opensearch":
        msg = f"The server at {addresses(url)} is not OpenSearch."
        raise ValueError(msg)


def _store(engine: Engine, url: str, index: str) -> tuple[type[EngineAdapter], Any]:
    """Return a document store, which holds the address and the credentials, and its adapter."""
    if engine == "opensearch":
        from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore  # noqa: PLC0415

        from haystack_integrations.components.retrievers.keytok.adapters.opensearch import (  # noqa: PLC0415  # an extra
            OpenSearchAdapter,
        )

        return OpenSearchAdapter, OpenSearchDocumentStore(hosts=url, index=index)
    from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore  # noqa: PLC0415

    from haystack_integrations.components.retrievers.keytok.adapters.elasticsearch import (  # noqa: PLC0415
        ElasticsearchAdapter,
    )

    return ElasticsearchAdapter, ElasticsearchDocumentStore(hosts=url, index=index)


def vectors_note(engine: Engine, client: Any, index: str) -> str:
    """Say what cannot be changed any more in an index that leaves vectors out of `_source`; empty if it does not."""
    if engine != "elasticsearch":
        return ""
    from haystack_integrations.components.retrievers.keytok.adapters.elasticsearch import (  # noqa: PLC0415  # an extra
        leaves_vectors_out,
    )

    if not leaves_vectors_out(client, index):
        return ""
    return (
        f" But '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors), which only a new index "
        "can change: the hits of other retrievers come without key tokens and cannot be explained."
    )


def server_version(client: Any) -> tuple[int, ...]:
    """Return the version of the server, such as `(9, 5, 3)`."""
    return tuple(int(part) for part in re.findall(r"\d+", client.info()["version"]["number"])[:3])


def create_index(
    client: Any, index: str, definition: Mapping[str, Any], field: str, fingerprint: str
) -> Literal["created", "extended", "marked", "kept"]:
    """
    Create an index, or add a field of key tokens to one that exists, or to all behind an alias.

    Of an index that exists nothing else is changed: neither its settings nor its other fields. Where the field is
    there already, its model is noted in the mapping.

    :param definition: What `index_definition` returns.
    :param field: The field of the key tokens.
    :param fingerprint: The fingerprint of the model that they are of.
    :raises MappingError: The index has the field, of another type or for another model; nothing is changed then.
    :raises ValueError: The name is a pattern that matches no index.
    """
    if not client.indices.exists(index=index):
        client.indices.create(index=index, body=definition)
        return "created"
    wanted = definition["mappings"]
    fields, marks = {}, {}
    indices = client.indices.get_mapping(index=index)
    if not indices:
        msg = f"No index matches '{index}'."
        raise ValueError(msg)
    for name, described in indices.items():
        existing = described["mappings"]
        meta = merged_meta(existing.get("_meta", {}), wanted["_meta"])
        if not has_field(existing, field):
            fields[name] = {"properties": {field: wanted["properties"][field]}, "_meta": meta}
            continue
        found = key_token_field(existing, field, name).fingerprint
        if found is None:
            marks[name] = {"_meta": meta}
        elif found != fingerprint:
            msg = (
                f"The field '{field}' of the index '{name}' is written with the key-token model {found}, not "
                f"{fingerprint}. Add another field beside it: --field {field}_v2."
            )
            raise MappingError(msg)
    for name, change in {**fields, **marks}.items():
        client.indices.put_mapping(index=name, body=change)
    return "extended" if fields else "marked" if marks else "kept"
