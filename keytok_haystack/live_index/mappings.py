# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The mapping of an index: its fields of key tokens, and what is noted of their models."""

from collections.abc import Mapping
from typing import Any, Literal

from haystack.document_stores.errors import DocumentStoreError

from keytok_haystack.engines import MappingError, key_token_field
from keytok_haystack.engines.connection import Connection
from keytok_haystack.engines.mapping import has_field, merged_meta, without_meta


def create_index(
    connection: Connection, definition: Mapping[str, Any], field: str, fingerprint: str
) -> Literal["created", "extended", "marked", "kept"]:
    """
    Create an index, or add a field of key tokens to one that exists, or to all behind an alias.

    Of an index that exists nothing else is changed: neither its settings nor its other fields. Where the field is
    there already, its model is noted in the mapping.

    :param definition: What `index_definition` returns.
    :param field: The field of the key tokens.
    :param fingerprint: The fingerprint of the model that they are of.
    :raises MappingError: The index has the field, of another type or for another model; nothing is changed then.
    :raises DocumentStoreError: The name is a pattern that matches no index.
    """
    indices = connection.client.indices
    if not indices.exists(index=connection.index):
        indices.create(index=connection.index, body=definition)
        return "created"
    changes = planned_changes(mappings_of(connection), definition, field, fingerprint)
    change_mappings(connection, changes)
    if any("properties" in change for change in changes.values()):
        return "extended"
    return "marked" if changes else "kept"


def planned_changes(
    live: Mapping[str, Mapping[str, Any]], definition: Mapping[str, Any], field: str, fingerprint: str
) -> dict[str, dict[str, Any]]:
    """
    Return the changes of mappings that add a field of key tokens, or note the model of one that is there.

    :param live: What `mappings_of` returns.
    :param definition: What `index_definition` returns.
    :param field: The field of the key tokens.
    :param fingerprint: The fingerprint of the model that they are of.
    :returns: Changes by the names of indices, without those that are as they should be.
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
    """Remove from the mappings what they note of a field's model, after which it may be written with another."""
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
