# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haystack import Document, Pipeline, default_to_dict, super_component
from haystack.components.embedders.types import TextEmbedder
from haystack.components.joiners import DocumentJoiner
from haystack.document_stores.types import DocumentStore

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok.adapters import store_retrievers
from haystack_integrations.components.retrievers.keytok.explainer import KeyTokenExplainer
from haystack_integrations.components.retrievers.keytok.sparse_retriever import SparseRetriever


@super_component
class KeyTokenHybridRetriever:
    """
    Retrieves documents by key tokens, dense vectors and BM25 at once, and explains the hits.

    It is a pipeline of seven components: the query is embedded once, the document store's own retrievers find documents
    by dense vectors and BM25 beside `SparseRetriever`, reciprocal rank fusion joins the three lists, and
    `KeyTokenExplainer` lists the tokens that each document shares with the query. For anything else, build your own
    pipeline from `pipelines/hybrid.*.yml`.

    ### Usage example
    ```python
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
    from haystack_integrations.components.retrievers.keytok import KeyTokenHybridRetriever

    retriever = KeyTokenHybridRetriever(
        InMemoryDocumentStore(index="keytok"),
        embedder=SentenceTransformersTextEmbedder(model="sentence-transformers/all-MiniLM-L6-v2"),
        model="models/key-tokens",
    )
    for document in retriever.run(query="shock waves")["documents"]:
        print(document.content, document.meta["matched_tokens"])
    ```
    """

    def __init__(
        self,
        document_store: DocumentStore,
        *,
        embedder: TextEmbedder,
        model: str | Path,
        top_k: int = 10,
        candidates_per_retriever: int = 100,
        field: str = "key_tokens",
    ) -> None:
        """
        Creates a KeyTokenHybridRetriever component.

        :param document_store:
            The document store to search, of a kind that `SparseRetriever` supports.
        :param embedder:
            The text embedder for queries. Its embeddings must be of the kind that the documents and the key-token model
            have.
        :param model:
            Path of the folder of the key-token model that the documents were written with.
        :param top_k:
            Maximum number of documents to return.
        :param candidates_per_retriever:
            Number of documents that each of the three retrievers contributes to the fusion.
        :param field:
            The key of `meta` that holds a document's key tokens.

        :raises TypeError:
            If the document store is of a kind that is not supported.
        """
        self.document_store = document_store
        self.embedder = embedder
        self.model = str(model)
        self.top_k = top_k
        self.candidates_per_retriever = candidates_per_retriever
        self.field = field

        dense_retriever, bm25_retriever = store_retrievers(document_store)
        self.pipeline = Pipeline()
        self.pipeline.add_component("text_embedder", embedder)
        self.pipeline.add_component("key_token_embedder", KeyTokenSparseEmbedder(model))
        common: dict[str, Any] = {"document_store": document_store, "top_k": candidates_per_retriever}
        key_token_retriever = SparseRetriever(model=model, field=field, **common)
        self.pipeline.add_component("key_token_retriever", key_token_retriever)
        self.pipeline.add_component("dense_retriever", dense_retriever(**common))
        self.pipeline.add_component("bm25_retriever", bm25_retriever(**common))
        joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=top_k)
        self.pipeline.add_component("joiner", joiner)
        self.pipeline.add_component("explainer", KeyTokenExplainer(field=field))
        self.pipeline.connect("text_embedder.embedding", "key_token_embedder.embedding")
        self.pipeline.connect("text_embedder.embedding", "dense_retriever.query_embedding")
        self.pipeline.connect("key_token_embedder.key_tokens", "key_token_retriever.key_tokens")
        self.pipeline.connect("key_token_embedder.key_tokens", "explainer.key_tokens")
        for retriever in ("key_token_retriever", "dense_retriever", "bm25_retriever"):
            self.pipeline.connect(f"{retriever}.documents", "joiner.documents")
        self.pipeline.connect("joiner.documents", "explainer.documents")

        self.input_mapping = {
            "query": ["text_embedder.text", "key_token_embedder.text", "bm25_retriever.query"],
            "filters": ["key_token_retriever.filters", "dense_retriever.filters", "bm25_retriever.filters"],
            "top_k": ["joiner.top_k"],
        }
        self.output_mapping = {"explainer.documents": "documents"}

    if TYPE_CHECKING:

        def run(
            self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
        ) -> dict[str, list[Document]]:
            """
            Retrieves documents.

            :param query:
                The text of the query.
            :param filters:
                Filters to narrow down the documents.
            :param top_k:
                Maximum number of documents to return.
            :returns:
                A dictionary with the following keys:
                - `documents`: The documents, best first, with `meta["matched_tokens"]`.
            """

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(
            self,
            document_store=self.document_store,
            embedder=self.embedder,
            model=self.model,
            top_k=self.top_k,
            candidates_per_retriever=self.candidates_per_retriever,
            field=self.field,
        )
