# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
from pathlib import Path
from typing import Any

from haystack import Document, component, default_to_dict
from haystack.components.embedders.types import TextEmbedder
from haystack.document_stores.types import DocumentStore, FilterPolicy

from haystack_integrations.components.retrievers.keytok.explainer import KeyTokenExplainer
from haystack_integrations.components.retrievers.keytok.lifecycle import call_each, call_each_async
from haystack_integrations.components.retrievers.keytok.sparse_retriever import SparseRetriever
from keytok_haystack.weighting import BM25_WEIGHT, DENSE_WEIGHT, FIRST_PHASE, RESCORED


@component
class KeyTokenHybridRetriever:
    """
    Retrieves documents by key tokens, dense vectors and BM25 in one request, and explains the hits.

    It is three components in one: the query is embedded once, `SparseRetriever` asks the document store for the sum of
    the three parts, and `KeyTokenExplainer` lists the tokens that each document shares with the query. For anything
    else, build your own pipeline from `pipelines/hybrid.*.yml`.

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
        print(document.content, document.meta["matched_tokens"], document.meta["score_parts"])
    ```
    """

    def __init__(
        self,
        document_store: DocumentStore,
        *,
        embedder: TextEmbedder,
        model: str | Path,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        dense_weight: float = DENSE_WEIGHT,
        bm25_weight: float = BM25_WEIGHT,
        first_phase: float = FIRST_PHASE,
        rescored: int = RESCORED,
        nearest: int = 0,
        field: str = "key_tokens",
        content_field: str = "content",
        timeout: float = 30.0,
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
        :param filters:
            Filters to narrow down the documents, for all parts alike.
        :param top_k:
            Maximum number of documents to return.
        :param filter_policy:
            Whether filters at run time replace the ones given here or are merged with them.
        :param dense_weight:
            Factor of the cosine similarity of the dense vectors, beside the key-token score; 0 leaves them out.
        :param bm25_weight:
            Factor of the BM25 score; 0 leaves BM25 out.
        :param first_phase:
            Share of the query's total weight carried by its strongest tokens, which select the candidates.
        :param rescored:
            Number of candidates, the best by these tokens, to score by all tokens, cosine and BM25.
        :param nearest:
            Number of nearest documents by the store's vector index to add to the candidates.
        :param field:
            The key of `meta` that holds a document's key tokens.
        :param content_field:
            Field of the index of OpenSearch or Elasticsearch that BM25 searches.
        :param timeout:
            Maximum number of seconds to wait for the answer of OpenSearch or Elasticsearch.

        :raises ValueError:
            If a number is out of its range, as for `SparseRetriever`.
        :raises TypeError:
            If the document store is of a kind that is not supported.
        """
        self.document_store = document_store
        self.embedder = embedder
        self.model = str(model)
        self.filters = filters
        self.top_k = top_k
        self.dense_weight = dense_weight
        self.bm25_weight = bm25_weight
        self.first_phase = first_phase
        self.rescored = rescored
        self.nearest = nearest
        self.field = field
        self.content_field = content_field
        self.timeout = timeout

        self._retriever = SparseRetriever(
            document_store,
            filters=filters,
            top_k=top_k,
            filter_policy=filter_policy,
            model=model,
            dense_weight=dense_weight,
            bm25_weight=bm25_weight,
            first_phase=first_phase,
            rescored=rescored,
            nearest=nearest,
            field=field,
            content_field=content_field,
            timeout=timeout,
        )
        self.filter_policy = self._retriever.filter_policy
        self._explainer = KeyTokenExplainer(field=field)

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
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            dense_weight=self.dense_weight,
            bm25_weight=self.bm25_weight,
            first_phase=self.first_phase,
            rescored=self.rescored,
            nearest=self.nearest,
            field=self.field,
            content_field=self.content_field,
            timeout=self.timeout,
        )

    def warm_up(self) -> None:
        """
        Warms up the text embedder, loads the key-token model, and checks that the document store can be searched.

        :raises MappingError:
            If the index has no key tokens of this model or no dense vectors.
        :raises ValueError:
            If the document store has no such part as a weight asks for.
        :raises DocumentStoreError:
            If the engine cannot be reached, refuses the credentials or has no such index.
        """
        call_each("warm_up", self.embedder, self._retriever)

    async def warm_up_async(self) -> None:
        """
        Warms up as `warm_up` does, asynchronously where the text embedder can.
        """
        await call_each_async("warm_up", self.embedder, self._retriever)

    def close(self) -> None:
        """
        Frees what the text embedder and the retriever hold; a later run restores it.
        """
        call_each("close", self.embedder, self._retriever)

    async def close_async(self) -> None:
        """
        Frees what the asynchronous runs of the text embedder and the retriever hold.
        """
        await call_each_async("close", self.embedder, self._retriever)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        """
        Retrieves documents by meaning and by words.

        :param query:
            What to search for, in a phrase or a sentence.
        :param filters:
            Conditions on the metadata of documents, such as {"field": "meta.year", "operator": ">=", "value": 1960};
            several are joined as {"operator": "AND", "conditions": [...]}. Operators are ==, !=, >, >=, <, <=, in and
            not in.
        :param top_k:
            Maximum number of documents to return.
        :returns:
            A dictionary with the following keys:
            - `documents`: The documents, best first. `meta["matched_tokens"]` lists the tokens shared with the query,
                `meta["score_parts"]` the score and the rank by each part, and `meta["why"]` is the explanation in a
                sentence.
            - `meta`: `confidence` of the query, about 1 for one about what the model was fitted to; `empty` says why
                nothing is found.

        :raises ValueError:
            If the query's embedding or text is unusable, or `top_k` is negative.
        :raises FilterError:
            If the filters are invalid.
        :raises DocumentStoreError:
            If an engine cannot be reached or cannot answer.
        """
        self.warm_up()
        embedding = self.embedder.run(text=query)["embedding"]
        found = self._retriever.run(query_embedding=embedding, query=query, filters=filters, top_k=top_k)
        return {**self._explainer.run(**found), "meta": found["meta"]}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """
        Retrieves documents asynchronously; parameters, result and errors are those of `run`.

        :param query:
            What to search for, in a phrase or a sentence.
        :param filters:
            Conditions on the metadata of documents.
        :param top_k:
            Maximum number of documents to return.
        :returns:
            A dictionary with the following keys:
            - `documents`: The documents, best first, explained.
            - `meta`: What is known of the query, and why nothing is found.
        """
        await self.warm_up_async()
        if hasattr(self.embedder, "run_async"):
            embedded = await self.embedder.run_async(text=query)
        else:
            embedded = await asyncio.to_thread(self.embedder.run, text=query)
        found = await self._retriever.run_async(
            query_embedding=embedded["embedding"], query=query, filters=filters, top_k=top_k
        )
        return {**self._explainer.run(**found), "meta": found["meta"]}
