# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Documents to explore: texts in files, which are indexed in memory, or an engine's index."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DocumentStore

from keytok_haystack.encoders import CachedEmbedder
from keytok_haystack.engines import Engine
from keytok_haystack.engines.server import server_of
from keytok_haystack.evaluation.records import CollectionError
from keytok_haystack.evaluation.texts import USUAL_FIELDS, TextFields, texts_by_id
from keytok_haystack.model import KeyTokenModel


@dataclass(frozen=True)
class Source:
    """
    Documents to explore.

    :param name: Name for people.
    :param store: Document store with them.
    :param kind: Ending of the names of the pipelines over such a store.
    :param parameters: Parameters of the store in those pipelines.
    """

    name: str
    store: DocumentStore
    kind: str
    parameters: Mapping[str, Any]

    def documents(self, filters: dict[str, Any]) -> list[Document]:
        """
        Return the documents that pass filters, as they are stored.

        :raises FilterError: The filters cannot be read.
        :raises DocumentStoreError: The engine cannot be reached, or refuses.
        """
        if isinstance(self.store, InMemoryDocumentStore):
            return self.store.filter_documents(filters)
        with server_of(self.store).clear_errors():
            return self.store.filter_documents(filters)

    def field_types(self) -> dict[str, str]:
        """
        Return the types of the metadata fields, by their names.

        :raises DocumentStoreError: The engine cannot be reached, or refuses.
        """
        if isinstance(self.store, InMemoryDocumentStore):
            return {name: about["type"] for name, about in self.store.get_metadata_fields_info().items()}
        server = server_of(self.store)
        with server.connected() as client:
            indices = client.indices.get_mapping(index=server.index)
        properties = [index["mappings"].get("properties", {}) for index in indices.values()]
        return {name: about.get("type", "object") for each in properties for name, about in each.items()}


def text_source(
    path: Path, model: KeyTokenModel, embedder: CachedEmbedder, fields: TextFields = USUAL_FIELDS
) -> Source:
    """
    Index texts in memory; their embeddings are cached.

    :param path: Folder in BEIR's layout, or file of texts, as for `read_texts`.
    :param model: Key-token model.
    :param embedder: Embedder of the texts.
    :param fields: Fields with the texts and ids.
    :raises CollectionError: The texts cannot be read, or there are none.
    :raises ValueError: The embedder cannot be run.
    """
    texts = texts_by_id(path, fields)
    if not texts:
        msg = f"'{path}' holds no texts."
        raise CollectionError(msg)
    embeddings = embedder.embed(list(texts.values())).embeddings
    tokens = model.document_tokens(model.encode_documents(embeddings, texts.values()))
    index = f"explore-{uuid4().hex}"
    store = InMemoryDocumentStore(index=index, embedding_similarity_function="cosine")
    store.write_documents(
        [
            Document(id=key, content=text, embedding=embedding, meta={"key_tokens": key_tokens})
            for (key, text), embedding, key_tokens in zip(texts.items(), embeddings.tolist(), tokens, strict=True)
        ]
    )
    return Source(str(path), store, "in_memory", store.to_dict()["init_parameters"])


def engine_source(engine: Engine, url: str, index: str, *, ca_cert: Path | None = None, verify: bool = True) -> Source:
    """
    Take the index of an engine, which has key tokens.

    :param engine: Engine of the server.
    :param url: Address of the server.
    :param index: Name of the index, alias or data stream.
    :param ca_cert: As for `document_store`.
    :param verify: As for `document_store`.
    """
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415  # needs an extra

    store = document_store(engine, url, index, ca_cert=ca_cert, verify=verify, return_embedding=True)
    parameters = store.to_dict()["init_parameters"]
    if "create_index" in parameters:  # OpenSearch's; an index that is not there has nothing to explore
        parameters["create_index"] = False
    return Source(index, store, engine, parameters)
