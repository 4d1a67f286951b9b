# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

from haystack import Document, component, default_to_dict
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.types import DocumentStore, FilterPolicy, apply_filter_policy
from haystack.tracing.tracer import tracer

from haystack_integrations.components.embedders.keytok.alternatives import is_branch_not_taken
from haystack_integrations.components.embedders.keytok.conversion import checked_key_tokens, encode_query, named_tokens
from haystack_integrations.components.embedders.keytok.loading import load_model
from haystack_integrations.components.retrievers.keytok.adapters import SearchQuery, SearchSettings, adapter_for
from keytok_haystack import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.utils.checks import check_embeddings, check_texts
from keytok_haystack.weighting import FIRST_PHASE, RESCORED

_FORMS = ("key_tokens", "query_sparse_embedding", "query_embedding")
_NO_WORDS = "The query has no key tokens, since its text has no words but stop words."
_EXPLAINING = ("matched_tokens", "score_parts")


@component
class SparseRetriever:
    """
    Retrieves documents by their key tokens, from an inverted index, alone or with dense vectors and BM25 beside them.

    The score of a document is the sum, over the tokens that it shares with the query, of the query's weight times the
    document's. The query has one of three forms: `key_tokens` from `KeyTokenSparseEmbedder`; `query_embedding` from any
    dense embedder, which needs `model` and makes this the only new component of a query pipeline; or
    `query_sparse_embedding`, the vector of any Haystack sparse embedder.

    A hybrid search is one request, too: `dense_weight` adds the cosine of the dense vectors, and `bm25_weight` BM25. An
    engine finds documents by the strongest key tokens and scores the best of them again, by all tokens and with their
    exact cosines and BM25, for which it needs no graph of vectors. `meta["score_parts"]` of each hit then tells what
    each part gave.

    Each hit comes with the tokens that it shares with the query (`meta["matched_tokens"]`), as the engine scores them,
    instead of all its key tokens, which are many times as long.

    Supported document stores: `InMemoryDocumentStore`; `OpenSearchDocumentStore` with a `rank_features` field;
    `ElasticsearchDocumentStore` with a `rank_features` or `sparse_vector` field, for which `keytok mapping --create`
    creates an index; `QdrantDocumentStore` and `MilvusDocumentStore`, whose documents need a `sparse_embedding`
    (`KeyTokenSparseEmbedder(return_sparse_embedding=True)`), and which have no BM25.

    ### Usage example
    ```python
    from haystack import Document
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.retrievers.keytok import SparseRetriever

    document_store = InMemoryDocumentStore()
    document_store.write_documents([
        Document(content="Shock waves", meta={"key_tokens": {"shock": 1.0, "wave": 0.9}}),
        Document(content="Heat transfer", meta={"key_tokens": {"heat": 1.0, "transfer": 0.8}}),
    ])
    retriever = SparseRetriever(document_store, top_k=1)
    print(retriever.run(key_tokens={"shock": 1.0, "boundary": 0.5})["documents"][0].content)

    # Shock waves
    ```
    """

    def __init__(
        self,
        document_store: DocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        model: str | Path | None = None,
        dense_weight: float = 0.0,
        bm25_weight: float = 0.0,
        first_phase: float = FIRST_PHASE,
        rescored: int = RESCORED,
        nearest: int = 0,
        field: str = "key_tokens",
        content_field: str = "content",
        timeout: float = 30.0,
        return_key_tokens: bool = False,
    ) -> None:
        """
        Creates a SparseRetriever component.

        :param document_store:
            The document store to search.
        :param filters:
            Filters to narrow down the documents.
        :param top_k:
            Maximum number of documents to return.
        :param filter_policy:
            Whether filters at run time replace the ones given here or are merged with them.
        :param model:
            Path of the folder of the key-token model that the documents were written with. It is needed for
            `query_embedding` without other key tokens, and for Qdrant and Milvus; with it, `warm_up` checks that an
            index of OpenSearch or Elasticsearch is written with this very model.
        :param dense_weight:
            Factor of the cosine similarity of `query_embedding` and a document's embedding, which is added to its
            score; 0 leaves dense vectors out. Key-token weights have the same scale for every model, and cosines for
            every store.
        :param bm25_weight:
            Factor of the BM25 score of `query`, by Lucene's formula and the index's analyzer, which is added, too; 0
            leaves BM25 out.
        :param first_phase:
            Share of the query's total weight carried by its strongest tokens, which select the candidates. 1 uses all
            tokens, which is exact but slower. Qdrant and Milvus always use all.
        :param rescored:
            Number of candidates, the best by these tokens, to score by all tokens, cosine and BM25; at least twice
            `top_k`. Other documents are not returned. Without a `dense_weight`, BM25 selects candidates, too.
        :param nearest:
            Number of nearest documents by the store's vector index to add to the candidates, whatever words they share
            with the query. It changes no score.
        :param field:
            The key of `meta` that holds a document's key tokens, which is also the name of the field in the index.
        :param content_field:
            Field of the index of OpenSearch or Elasticsearch that BM25 searches.
        :param timeout:
            Maximum number of seconds to wait for the answer of OpenSearch or Elasticsearch.
        :param return_key_tokens:
            Whether to return all key tokens of hits, in `meta[field]`; `meta["matched_tokens"]` has the shared ones
            only. Hits that are written back to the store lose their key tokens otherwise.

        :raises ValueError:
            If `top_k`, `first_phase`, `rescored` or `timeout` is not greater than 0, `first_phase` is greater than 1,
            or a weight or `nearest` is negative or not finite.
        :raises TypeError:
            If the document store is of a kind that is not supported.
        """
        if first_phase > 1:
            msg = f"first_phase is a share, so it must not be greater than 1, but got {first_phase}."
            raise ValueError(msg)
        if top_k <= 0:
            msg = f"top_k must be greater than 0, but got {top_k}."
            raise ValueError(msg)
        for name, value in (("first_phase", first_phase), ("rescored", rescored), ("timeout", timeout)):
            if not 0 < value < math.inf:
                msg = f"{name} must be greater than 0 and finite, but got {value}."
                raise ValueError(msg)
        for name, value in (("dense_weight", dense_weight), ("bm25_weight", bm25_weight), ("nearest", nearest)):
            if not 0 <= value < math.inf:
                msg = f"{name} must be a finite number and not negative, but got {value}."
                raise ValueError(msg)
        self._adapter = adapter_for(
            document_store, SearchSettings(field, content_field, rescored, nearest, timeout, return_key_tokens)
        )
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = (
            filter_policy if isinstance(filter_policy, FilterPolicy) else FilterPolicy.from_str(filter_policy)
        )
        self.model = None if model is None else str(model)
        self.dense_weight = dense_weight
        self.bm25_weight = bm25_weight
        self.first_phase = first_phase
        self.rescored = rescored
        self.nearest = nearest
        self.field = field
        self.content_field = content_field
        self.timeout = timeout
        self.return_key_tokens = return_key_tokens
        self._warm: tuple[KeyTokenModel | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            model=self.model,
            dense_weight=self.dense_weight,
            bm25_weight=self.bm25_weight,
            first_phase=self.first_phase,
            rescored=self.rescored,
            nearest=self.nearest,
            field=self.field,
            content_field=self.content_field,
            timeout=self.timeout,
            return_key_tokens=self.return_key_tokens,
        )

    def warm_up(self) -> None:
        """
        Loads the key-token model, if one was given, and checks that the document store can be searched.

        :raises MappingError:
            If the index has no field of key tokens, or one that was written with another model than `model`, or no
            dense vectors although there is a `dense_weight`; or the settings of a Qdrant store change scores.
        :raises ValueError:
            If Qdrant or Milvus are searched without a `model`, or have no such part as a weight asks for.
        :raises DocumentStoreError:
            If the engine cannot be reached, refuses the credentials or has no such index.
        """
        self._warmed_up()

    async def warm_up_async(self) -> None:
        """
        Loads the key-token model and checks the document store as `warm_up` does, in a thread.
        """
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """
        Frees the model and the index, or closes the document store's connection; a later run restores them.
        """
        self._adapter.close()
        self._warm = None

    async def close_async(self) -> None:
        """
        Frees the model and the index, or closes the document store's asynchronous connection.
        """
        await self._adapter.close_async()
        self._warm = None

    @component.output_types(documents=list[Document], key_tokens=dict[str, float], meta=dict[str, Any])
    def run(
        self,
        key_tokens: dict[str, float] | None = None,
        query_sparse_embedding: SparseEmbedding | None = None,
        query_embedding: list[float] | None = None,
        query: str | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        required_tokens: list[str] | None = None,
    ) -> dict[str, Any]:
        """
        Retrieves documents.

        :param key_tokens:
            Key tokens of the query, `{token: weight}`. Tokens are escaped as in documents (`escape_feature`).
        :param query_sparse_embedding:
            Sparse embedding of the query. With `model`, its indices are features of that model, or hashes of words that
            `query` names, as `KeyTokenSparseEmbedder` returns them. Without, they are those of any other sparse
            embedder, and are looked up as strings.
        :param query_embedding:
            Dense embedding of the query, for cosines if there is a `dense_weight`. Key tokens are read from it if they
            are not given otherwise; that needs `model`.
        :param query:
            Text of the query, for BM25, for the literal tokens beside `query_embedding`, and for the names of words in
            `query_sparse_embedding` that the model does not know.
        :param filters:
            Filters to narrow down the documents. `filter_policy` decides whether they replace those given at
            initialization or are merged with them.
        :param top_k:
            Maximum number of documents to return. 0 returns none.
        :param required_tokens:
            Tokens, escaped as in documents, that each hit must have among its key tokens.
        :returns:
            A dictionary with the following keys:
            - `documents`: The documents with the highest scores, best first, without documents that share nothing with
                the query. `meta["matched_tokens"]` lists the tokens that each shares with the query, strongest first:
                dicts with the keys `token`, `query_weight`, `document_weight` and `contribution`. With several parts,
                `meta["score_parts"]` maps `key_tokens`, `bm25` and `dense` to the `score` that each gave, and to the
                `rank` by it among these documents; engines that do not tell BM25 and dense apart have both as
                `bm25_and_dense`.
            - `key_tokens`: Key tokens of the query, for `KeyTokenExplainer`. They are empty for a `query` without any
                words but stop words, whatever its embedding decodes to, and nothing is found then, but the `nearest`.
            - `meta`: For `query_embedding` the `confidence` of the tokens that are read from it: the share of random
                embeddings that decode to tokens more weakly, about 1 for a query about what the model was fitted to,
                about 0.5 or less for any other, and None if it is not known; and the `literal_tokens`, those that are
                words of `query`. If nothing is found, `empty` says why, in a sentence.

            In a pipeline whose router has sent every form of the query elsewhere, it is empty.

        :raises ValueError:
            If not exactly one form of the query is given, the model, text or embedding that it needs is missing, a
            weight is not positive, or `top_k` is negative.
        :raises DocumentStoreError:
            If an engine cannot be reached or cannot answer.
        """
        if self._is_branch_not_taken(key_tokens, query_sparse_embedding, query_embedding):
            return {}
        search, meta = self._search_query(
            self._warmed_up(), key_tokens, query_sparse_embedding, query_embedding, query, required_tokens
        )
        if "empty" in meta:
            return _result([], search, meta)
        filters, top_k = self._resolve(filters, top_k)
        documents = self._adapter.search(search, filters, top_k)
        if not documents and top_k:
            unfiltered = filters and self._adapter.search(search, None, 1)
            meta["empty"] = _why_empty(search, unfiltered)
        return _result(documents, search, meta)

    @component.output_types(documents=list[Document], key_tokens=dict[str, float], meta=dict[str, Any])
    async def run_async(
        self,
        key_tokens: dict[str, float] | None = None,
        query_sparse_embedding: SparseEmbedding | None = None,
        query_embedding: list[float] | None = None,
        query: str | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        required_tokens: list[str] | None = None,
    ) -> dict[str, Any]:
        """
        Retrieves documents asynchronously; parameters, result and errors are those of `run`.

        :param key_tokens:
            Key tokens of the query, `{token: weight}`.
        :param query_sparse_embedding:
            Sparse embedding of the query.
        :param query_embedding:
            Dense embedding of the query. It needs `model`.
        :param query:
            Text of the query.
        :param filters:
            Filters to narrow down the documents.
        :param top_k:
            Maximum number of documents to return. 0 returns none.
        :param required_tokens:
            Tokens that each hit must have among its key tokens.
        :returns:
            A dictionary with the following keys:
            - `documents`: The documents with the highest scores, best first.
            - `key_tokens`: Key tokens of the query.
            - `meta`: What is known of the key tokens, and why nothing is found.
        """
        if self._is_branch_not_taken(key_tokens, query_sparse_embedding, query_embedding):
            return {}
        model = await asyncio.to_thread(self._warmed_up)
        search, meta = await asyncio.to_thread(
            self._search_query, model, key_tokens, query_sparse_embedding, query_embedding, query, required_tokens
        )
        if "empty" in meta:
            return _result([], search, meta)
        filters, top_k = self._resolve(filters, top_k)
        documents = await self._adapter.search_async(search, filters, top_k)
        if not documents and top_k:
            unfiltered = filters and await self._adapter.search_async(search, None, 1)
            meta["empty"] = _why_empty(search, unfiltered)
        return _result(documents, search, meta)

    def run_batch(
        self,
        key_tokens: list[dict[str, float]],
        queries: list[str] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        query_embeddings: list[list[float]] | None = None,
    ) -> dict[str, list[list[Document]]]:
        """
        Retrieves documents for many queries, one after the other, as for evaluation.

        :param key_tokens:
            Key tokens of each query.
        :param queries:
            Text of each query. It is needed with a `bm25_weight`.
        :param filters:
            Filters to narrow down the documents.
        :param top_k:
            Maximum number of documents to return for each query. 0 returns none.
        :param query_embeddings:
            Dense embedding of each query. It is needed with a `dense_weight`.
        :returns:
            A dictionary with the following keys:
            - `documents`: For each query, the documents with the highest scores, best first.

        :raises ValueError:
            If there are not as many texts, or embeddings, as queries, or for the reasons that `run` lists.
        """
        model = self._warmed_up()
        texts = [None] * len(key_tokens) if queries is None else queries
        embeddings = [None] * len(key_tokens) if query_embeddings is None else query_embeddings
        for name, given in (("texts", texts), ("embeddings", embeddings)):
            if len(given) != len(key_tokens):
                msg = f"There are key tokens of {len(key_tokens)} queries, but {len(given)} {name}."
                raise ValueError(msg)
        searches = [
            self._search_query(model, tokens, None, embedding, text)[0]
            for tokens, embedding, text in zip(key_tokens, embeddings, texts, strict=True)
        ]
        filters, top_k = self._resolve(filters, top_k)
        return {"documents": [self._adapter.search(search, filters, top_k) for search in searches]}

    def _resolve(self, filters: dict[str, Any] | None, top_k: int | None) -> tuple[dict[str, Any] | None, int]:
        top_k = self.top_k if top_k is None else top_k
        if top_k < 0:
            msg = f"top_k must not be negative, but got {top_k}."
            raise ValueError(msg)
        # a copy, since Haystack before 3.2 merges others into it
        return apply_filter_policy(self.filter_policy, deepcopy(self.filters), filters), top_k

    def _is_branch_not_taken(self, *forms: object) -> bool:
        """Return whether no form of the query is given, since a router of the pipeline has sent it elsewhere."""
        return all(form is None for form in forms) and is_branch_not_taken(self, *_FORMS)

    def _warmed_up(self) -> KeyTokenModel | None:
        """Warm up and return the model, which a `close` in another thread does not take away from a run."""
        warm = self._warm
        if warm is None:
            model = None if self.model is None else load_model(self.model)
            self._adapter.warm_up(model, with_dense=self.dense_weight > 0, with_bm25=self.bm25_weight > 0)
            warm = self._warm = (model,)
        return warm[0]

    def _search_query(
        self,
        model: KeyTokenModel | None,
        key_tokens: dict[str, float] | None,
        query_sparse_embedding: SparseEmbedding | None,
        query_embedding: list[float] | None,
        query: str | None,
        required_tokens: list[str] | None = None,
    ) -> tuple[SearchQuery, dict[str, Any]]:
        """Return what is searched for, and what is known of the query's key tokens."""
        # beside other key tokens, an embedding is for cosines alone
        alternatives = (key_tokens, query_sparse_embedding, None if self.dense_weight else query_embedding)
        given = sum(form is not None for form in alternatives)
        if given > 1 or (given == 0 and query_embedding is None):
            msg = "SparseRetriever needs exactly one of `key_tokens`, `query_sparse_embedding` and `query_embedding`."
            raise ValueError(msg)
        if self.dense_weight and query_embedding is None:
            msg = "SparseRetriever has a `dense_weight`, so it needs the query's dense vector: pass `query_embedding`."
            raise ValueError(msg)
        if self.bm25_weight and query is None:
            msg = "SparseRetriever has a `bm25_weight`, so it needs the text of the query: pass `query`."
            raise ValueError(msg)
        if query is not None:
            check_texts([query])
        meta: dict[str, Any] = {}
        embedding = None if query_embedding is None else check_embeddings([query_embedding])[0].tolist()
        if query_sparse_embedding is not None:
            key_tokens = named_tokens(query_sparse_embedding, model, query)
        elif key_tokens is None and query_embedding is not None:
            if model is None:
                msg = "SparseRetriever needs a key-token model for `query_embedding`: set `model`."
                raise ValueError(msg)
            key_tokens, _, meta = encode_query(model, query_embedding, query)
            if not key_tokens and query is not None and not self.nearest:
                meta["empty"] = _NO_WORDS
        tokens = {} if key_tokens is None else checked_key_tokens(key_tokens, "the query")
        search = SearchQuery(
            tokens,
            self.first_phase,
            query or "",
            self.bm25_weight,
            embedding,
            self.dense_weight,
            required=tuple(required_tokens or ()),
        )
        return search, meta


def _why_empty(search: SearchQuery, without_filters: object) -> str:
    """
    Return why a search finds nothing, in a sentence.

    :param search: What is searched for.
    :param without_filters: What is found without the filters, if there are any.
    """
    if without_filters:
        return "The filters leave out every document that the query finds."
    if search.required:
        tokens = ", ".join(map(unescape_feature, search.required))
        return f"No document that the query finds has all required tokens: {tokens}."
    if search.tokens:
        return "No document has a token of the query."
    return "No document has a word of the query." if search.bm25_weight else "The query has no key tokens."


def _result(documents: list[Document], search: SearchQuery, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of a search, and tell the span of the component what they are made of."""
    if (span := tracer.current_span()) is not None:
        span.set_tags({f"keytok.{name}": meta[name] for name in ("confidence", "empty") if name in meta})
        span.set_content_tag("keytok.key_tokens", dict(search.tokens))
        hits = [
            {"id": hit.id, "score": hit.score, **{key: hit.meta[key] for key in _EXPLAINING if key in hit.meta}}
            for hit in documents
        ]
        span.set_content_tag("keytok.hits", hits)
    return {"documents": documents, "key_tokens": dict(search.tokens), "meta": meta}
