# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Live mappings of indices: their fields of key tokens, the models of these, and what a backfill needs."""

from collections.abc import Mapping
from typing import Any

from haystack.document_stores.errors import DocumentStoreError

from keytok_haystack.engines import MappingError, key_token_field
from keytok_haystack.engines.connection import Connection
from keytok_haystack.engines.mapping import dense_fields, has_field, merged_meta, without_meta


def planned_changes(
    live: Mapping[str, Mapping[str, Any]], definition: Mapping[str, Any], field: str, fingerprint: str
) -> dict[str, dict[str, Any]]:
    """
    Return the changes of mappings that add a field of key tokens, or record the model of an existing one.

    :param live: Live mappings (`mappings_of`).
    :param definition: Definition of an index with the field (`index_definition`).
    :param field: Field of the key tokens.
    :param fingerprint: Fingerprint of the model of the key tokens.
    :returns: Changes by the names of indices, without indices that need none.
    :raises MappingError: An index has the field, of another type or for another model.
    """
    wanted = definition["mappings"]
    changes: dict[str, dict[str, Any]] = {}
    for name, existing in live.items():
        meta = merged_meta(existing.get("_meta", {}), wanted["_meta"])
        if not has_field(existing, field):
            changes[name] = {"properties": {field: wanted["properties"][field]}, "_meta": meta}
            continue
        found = key_token_field(existing, field, name).fingerprint
        if found is None:
            changes[name] = {"_meta": meta}
        elif found != fingerprint:
            msg = (
                f"The field '{field}' of the index '{name}' is written with the key-token model {found}, not "
                f"{fingerprint}. Add another field beside it: --field {field}_v2."
            )
            raise MappingError(msg)
    return changes


def change_mappings(connection: Connection, changes: Mapping[str, dict[str, Any]]) -> None:
    """Change the mappings of indices, by their names."""
    for name, change in changes.items():
        connection.client.indices.put_mapping(index=name, body=change)


def forget_model(connection: Connection, field: str) -> None:
    """Remove the model of a field from the mappings, after which it may be written with another."""
    changes = {
        name: {"_meta": without_meta(existing.get("_meta", {}), field)}
        for name, existing in mappings_of(connection).items()
    }
    change_mappings(connection, changes)


def mappings_of(connection: Connection) -> dict[str, dict[str, Any]]:
    """
    Return the live mappings of an index, or of all behind an alias, by their names.

    :raises DocumentStoreError: There is no such index.
    """
    indices = connection.client.indices.get_mapping(index=connection.index)
    if not indices:
        msg = f"No index matches '{connection.index}'."
        raise DocumentStoreError(msg)
    return {name: described["mappings"] for name, described in indices.items()}


def embedding_dimension(live: Mapping[str, Mapping[str, Any]], field: str, index: str) -> int | None:
    """
    Return the dimension of the embeddings of an index, if its mapping records it.

    :param live: Live mappings (`mappings_of`).
    :param field: Field of the dense vectors.
    :param index: Name of the index, or of an alias, for messages.
    :raises MappingError: An index has no such field, or indices of an alias have different dimensions.
    """
    dimensions = set()
    for name, mappings in live.items():
        if (found := mappings.get("properties", {}).get(field)) is None:
            vectors = ", ".join(f"'{other}'" for other in dense_fields(mappings)) or "none"
            msg = (
                f"The index '{name}' has no field '{field}' for embeddings. Its fields of dense vectors: {vectors}; "
                "--embedding-field names another."
            )
            raise MappingError(msg)
        dimensions |= {found[key] for key in ("dimension", "dims") if key in found}
    if len(dimensions) > 1:
        msg = f"The indices behind '{index}' have embeddings of different dimensions: {sorted(dimensions)}."
        raise MappingError(msg)
    return next(iter(dimensions), None)
