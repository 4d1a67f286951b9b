# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Creation of an index with key tokens, or of their field in one that exists."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from haystack.document_stores.types import DocumentStore

from keytok_haystack.engines import index_definition
from keytok_haystack.engines.connection import connected
from keytok_haystack.live_index.inspection import check_one_name
from keytok_haystack.live_index.mappings import change_mappings, planned_changes
from keytok_haystack.live_index.templates import extend_template, warning_of_next
from keytok_haystack.model import KeyTokenModel, loaded_model


@dataclass(frozen=True)
class CreatedIndex:
    """
    Index that has a field of key tokens.

    :param change: Change that was needed: "created" is the whole index, "extended" the field, "marked" the model in
        the mapping of the field, "kept" none.
    :param template: Name of the index template that got the field.
    :param warning: What the next index of an alias or data stream will lack, in one sentence.
    :param leaves_vectors_out: Whether the index leaves vectors out of `_source` unasked, as Elasticsearch 9.2 does
        unless a setting of a new index says otherwise: hits of other retrievers then come without key tokens.
    """

    change: Literal["created", "extended", "marked", "kept"]
    template: str | None
    warning: str | None
    leaves_vectors_out: bool


def create_index(
    store: DocumentStore,
    model: KeyTokenModel | str | Path,
    *,
    field: str = "key_tokens",
    dense: bool = True,
    graph: bool = True,
    lean: bool = False,
    template: bool = False,
) -> CreatedIndex:
    """
    Create the index of a document store, or add a field of key tokens to it, or to all indices behind an alias.

    Nothing else of an existing index is changed, neither its settings nor its other fields. If it has the field
    already, the model is recorded in its mapping.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore`.
    :param model: Key-token model that documents are written with, or the path of its folder.
    :param field: Field of the key tokens.
    :param dense: Whether a new index has dense vectors, too.
    :param graph: Whether a new index has a graph of them (HNSW).
    :param lean: Whether a new index keeps documents without their key tokens (`index_definition`).
    :param template: Whether to add the field to the index template, too, that makes the next index of an alias or a
        data stream.
    :raises TypeError: The store is of another kind.
    :raises ValueError: The name of the field is taken, or the index is to have dense vectors on Elasticsearch 7.
    :raises MappingError: The index has the field, of another type or for another model; its name is a pattern; or no
        index template makes a next index. Nothing is changed then.
    :raises DocumentStoreError: The engine cannot be reached or refuses.
    """
    model = loaded_model(model)
    dimension = model.dimension if dense else None
    with connected(store) as connection:
        check_one_name(connection.index)
        definition = index_definition(
            connection.engine, dimension, model, field=field, graph=graph, lean=lean, version=connection.version
        )
        indices = connection.client.indices
        change: Literal["created", "extended", "marked", "kept"]
        name = warning = None
        if not template and not indices.exists(index=connection.index):
            indices.create(index=connection.index, body=definition)
            change = "created"
        else:
            described = indices.get(index=connection.index, flat_settings=True)
            live = {index: about["mappings"] for index, about in described.items()}
            changes = planned_changes(live, definition, field, model.fingerprint)
            if template:
                name = extend_template(connection, described, definition, field, model.fingerprint)
            change_mappings(connection, changes)
            has_new_field = any("properties" in changed for changed in changes.values())
            change = "extended" if has_new_field else "marked" if changes else "kept"
            warning = warning_of_next(connection, described, field)
        return CreatedIndex(
            change, name, warning, connection.server.leaves_vectors_out(connection.client, unasked=True)
        )
