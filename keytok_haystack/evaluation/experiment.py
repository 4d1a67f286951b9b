# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bm25s
import ir_measures
import numpy as np
import Stemmer
from ir_measures import R, nDCG
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tqdm import tqdm

from keytok_haystack.encoders import Embedded
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.index import BM25_B, BM25_K1, Bm25, Postings
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.rank_features import truncate_weights
from keytok_haystack.sources import CheckpointError, calibrate, from_word_embeddings
from keytok_haystack.sparse import top_k
from keytok_haystack.spectrum import Preparation

BM25_SHARE = 0.1
MEASURES = (nDCG @ 10, R @ 100)
_DEPTH = 100

Scorer = Callable[[int], NDArray[np.floating]]
"""From the position of a query to the scores of all documents, shape `(n,)`."""


@dataclass
class Report:
    """
    What an evaluation has measured; its fields are the keys of the JSON that `keytok evaluate` writes.

    :param data: The collection's name.
    :param split: The split of its judgements.
    :param embedder: The embedding model.
    :param systems: For each system its measures, `bytes_per_document` of its index in memory, and `ms_per_query`:
        the median time of scoring all documents and selecting the best, a query's embedding not included.
    :param controls: The same for variants that show where the quality comes from.
    :param k_document: How many key tokens a document keeps.
    :param m_query: How many aligned tokens a query has.
    :param seconds: `embed` all documents, `fit` the decoder, `project` all documents to key tokens. None: not known.
    :param embeddings_cached: Whether embedding was timed in an earlier run.
    :param documents: How many documents there are.
    :param queries: How many judged queries there are.
    """

    data: str
    split: str
    embedder: str | None
    systems: dict[str, dict[str, float]] = field(default_factory=dict)
    controls: dict[str, dict[str, float]] = field(default_factory=dict)
    k_document: int = 0
    m_query: int = 0
    seconds: dict[str, float | None] = field(default_factory=dict)
    embeddings_cached: bool = False
    documents: int = 0
    queries: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return asdict(self)


def evaluate(
    collection: Collection,
    split: str,
    model: KeyTokenModel,
    documents: Embedded,
    queries: Embedded,
    *,
    progress_bar: bool = True,
) -> Report:
    """
    Measure key tokens, BM25, the dense vectors, and their combinations on a test collection.

    Dense scores are cosine similarities. Fusions are sums of scores, each system's scaled to between 0 and 1 for the
    query (min-max). `key_tokens_bm25` is one query: BM25 over the model's tokens with a weight of 0.1 beside the key
    tokens.

    :param collection: The collection.
    :param split: The name of its judgements, for the report.
    :param model: The key-token model.
    :param documents: The documents' embeddings.
    :param queries: The judged queries' embeddings.
    :param progress_bar: Whether to show a progress bar.
    """
    started = time.perf_counter()
    weights = model.encode_documents(documents.embeddings)
    project_seconds = time.perf_counter() - started

    texts, query_texts = list(collection.documents.values()), list(collection.queries.values())
    query_rows = queries.embeddings
    dense_rows, dense_queries = Preparation()(documents.embeddings), Preparation()(query_rows)
    lexical, lexical_bytes = _stemmed_bm25(texts, query_texts)
    key_tokens = _KeyTokens(model, weights, query_rows, query_texts)
    in_index = Bm25(model.vocabulary.whole())
    in_index.add(texts)
    in_index.score("")  # weighs the postings, as the first query does

    def dense(i: int) -> NDArray[np.floating]:
        scores: NDArray[np.floating] = dense_rows @ dense_queries[i]
        return scores

    def in_one_query(i: int) -> NDArray[np.floating]:
        return key_tokens(i) + BM25_SHARE * in_index.score(query_texts[i])

    dense_bytes = dense_rows.nbytes
    systems: dict[str, tuple[Scorer, int]] = {
        "bm25": (lexical, lexical_bytes),
        "dense": (dense, dense_bytes),
        "key_tokens": (key_tokens, key_tokens.nbytes),
        "key_tokens_bm25": (in_one_query, key_tokens.nbytes + in_index.nbytes),
        "dense_bm25": (_fusion(dense, lexical), dense_bytes + lexical_bytes),
        "dense_bm25_key_tokens": (
            _fusion(dense, lexical, key_tokens),
            dense_bytes + lexical_bytes + key_tokens.nbytes,
        ),
    }
    controls: dict[str, tuple[Scorer, int]] = {
        name: (scorer, scorer.nbytes)
        for name, scorer in _controls(model, weights, documents, query_rows, texts, query_texts)
    }
    report = Report(
        data=collection.name,
        split=split,
        embedder=_label(model.embedder),
        k_document=model.weighting.k_document,
        m_query=model.weighting.m_query,
        seconds={"embed": documents.seconds, "fit": model.fit_seconds, "project": project_seconds},
        embeddings_cached=documents.cached,
        documents=len(texts),
        queries=len(query_texts),
    )
    everything = [(report.systems, name, *system) for name, system in systems.items()]
    everything += [(report.controls, name, *system) for name, system in controls.items()]
    for results, name, scorer, nbytes in tqdm(everything, desc="Evaluating", disable=not progress_bar):
        results[name] = {**_measure(collection, scorer), "bytes_per_document": nbytes / len(texts)}
    return report


def measure_run(collection: Collection, rankings: Mapping[str, Iterable[tuple[str, float]]]) -> dict[str, float]:
    """
    Return the measures of a run.

    :param rankings: For each query id, `(document id, score)` of what was found.
    """
    run = [
        ir_measures.ScoredDoc(query, document, score)
        for query, ranking in rankings.items()
        for document, score in ranking
    ]
    qrels = [
        ir_measures.Qrel(query, document, relevance)
        for query, judgements in collection.qrels.items()
        for document, relevance in judgements.items()
    ]
    return {str(name): float(value) for name, value in ir_measures.calc_aggregate(MEASURES, qrels, run).items()}


def _label(embedder: str | None) -> str | None:
    """Return the end of a path, which means the same on every machine; a hub id as it is."""
    return "/".join(Path(embedder).parts[-2:]) if embedder is not None else None


def _measure(collection: Collection, scorer: Scorer) -> dict[str, float]:
    identifiers = list(collection.documents)
    rankings, seconds = {}, []
    for position, query in enumerate(collection.queries):
        started = time.perf_counter()
        scores = scorer(position)
        best = np.argpartition(-scores, min(_DEPTH, len(scores) - 1))[:_DEPTH]
        seconds.append(time.perf_counter() - started)
        rankings[query] = [(identifiers[i], float(scores[i])) for i in best if scores[i] != 0]
    return {**measure_run(collection, rankings), "ms_per_query": 1000 * float(np.median(seconds))}


class _KeyTokens:
    """Key-token scores of all documents, projecting a query each time; called with the position of a query."""

    def __init__(
        self,
        model: KeyTokenModel,
        document_weights: csr_array,
        query_embeddings: NDArray[np.float32],
        query_texts: list[str],
        *,
        literals: bool = True,
        query_top_k: int | None = None,
    ) -> None:
        self._postings = Postings()
        self._postings.add(
            csr_array(
                (truncate_weights(document_weights.data), document_weights.indices, document_weights.indptr),
                shape=document_weights.shape,
            )
        )
        self._model = model
        self._embeddings = query_embeddings
        self._texts = query_texts
        self._literals = literals
        self._query_top_k = query_top_k
        self.nbytes = self._postings.nbytes

    def __call__(self, i: int) -> NDArray[np.floating]:
        texts = [self._texts[i]] if self._literals else None
        query = self._model.encode_queries(self._embeddings[i : i + 1], texts, self._query_top_k)
        return self._postings.score(query.indices, query.data)


def _stemmed_bm25(texts: list[str], query_texts: list[str]) -> tuple[Scorer, int]:
    """BM25 as it is usually run: English stop words removed, Porter2 stemming, Lucene's formula and parameters."""
    stemmer = Stemmer.Stemmer("english")

    def tokens(batch: list[str]) -> Any:
        return bm25s.tokenize(batch, stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)

    index = bm25s.BM25(method="lucene", k1=BM25_K1, b=BM25_B)
    index.index(tokens(texts), show_progress=False)
    queries = tokens(query_texts)
    nbytes = sum(index.scores[name].nbytes for name in ("data", "indices", "indptr"))

    def score(i: int) -> NDArray[np.floating]:
        scores: NDArray[np.floating] = index.get_scores(queries[i]) if queries[i] else np.zeros(len(texts))
        return scores

    return score, nbytes


def _fusion(*scorers: Scorer) -> Scorer:
    """Sum the scorers' scores, each scaled to between 0 and 1."""

    def scaled(scores: NDArray[np.floating]) -> NDArray[np.floating]:
        low, high = scores.min(), scores.max()
        return (scores - low) / (high - low) if high > low else np.zeros_like(scores)

    return lambda i: sum((scaled(scorer(i)) for scorer in scorers), np.zeros(1))


def _controls(
    model: KeyTokenModel,
    weights: csr_array,
    documents: Embedded,
    query_embeddings: NDArray[np.float32],
    texts: list[str],
    query_texts: list[str],
) -> Iterator[tuple[str, _KeyTokens]]:
    """Vary one part at a time: the query's literals, the documents' tokens, the decoder."""
    yield "key_tokens_without_literals", _KeyTokens(model, weights, query_embeddings, query_texts, literals=False)
    yield "literals_only", _KeyTokens(model, weights, query_embeddings, query_texts, query_top_k=0)
    if model.idf is not None:
        own = _own_tokens(model, texts)
        yield "own_tokens_literals_only", _KeyTokens(model, own, query_embeddings, query_texts, query_top_k=0)
        yield "own_tokens", _KeyTokens(model, own, query_embeddings, query_texts)
    if model.embedder is not None:
        try:
            raw = from_word_embeddings(model.embedder, local_files_only=True)
        except CheckpointError:
            return  # ready-made embeddings, or an embedder without a checkpoint that can be read
        if raw.dimension != model.dimension:
            return  # an embedder that projects its word embeddings, or their mean, to another space
        raw = calibrate(raw.with_weighting(**_sizes(model)), documents.embeddings, texts)
        raw_weights = raw.encode_documents(documents.embeddings)
        yield "word_embeddings", _KeyTokens(raw, raw_weights, query_embeddings, query_texts)
        yield (
            "word_embeddings_without_literals",
            _KeyTokens(raw, raw_weights, query_embeddings, query_texts, literals=False),
        )


def _own_tokens(model: KeyTokenModel, texts: list[str]) -> csr_array:
    """Weigh each document's own tokens by tf-idf and keep as many as a document has key tokens."""
    counts = model.vocabulary.literal_counts(texts)
    assert model.idf is not None  # noqa: S101  # the caller has checked
    tf_idf = csr_array(
        ((1 + np.log(counts.data)) * model.idf[counts.indices], counts.indices, counts.indptr), shape=counts.shape
    )
    rows = [top_k(tf_idf[[i]].toarray(), model.weighting.k_document) for i in range(tf_idf.shape[0])]
    indptr = np.concatenate([[0], np.cumsum([row.nnz for row in rows])])
    data = np.concatenate([row.data for row in rows])
    indices = np.concatenate([row.indices for row in rows])
    return model.weighting.document_weights(csr_array((data, indices, indptr), shape=counts.shape))


def _sizes(model: KeyTokenModel) -> dict[str, Any]:
    return {"k_document": model.weighting.k_document, "m_query": model.weighting.m_query}
