# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Measuring key tokens on a test collection, next to dense vectors, BM25 and fusions of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.encoders import Embedded
from keytok_haystack.encoders.splade import SpladeVectors
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.measures import measure_queries, paired_p_value, ranking
from keytok_haystack.evaluation.report import EvaluationReport, SystemMeasures, decoder_name, embedder_name
from keytok_haystack.evaluation.systems import (
    System,
    default_bm25,
    dense,
    hybrid,
    key_tokens,
    key_tokens_with_bm25,
    literal_tokens,
    min_max,
    reciprocal_rank_fusion,
    sparse_vectors,
    stemmed_bm25,
)
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.progress import progress_of

DECODER_SIZES = (128, 64)
SWEEP_K = (16, 32, 48, 64, 96, 128, 192, 256)
SWEEP_M = (0, 4, 8, 16, 32, 64)
_COMPARED_WITH = {
    "dense": (),
    "hybrid": ("dense", "dense_bm25"),
    "dense_bm25_key_tokens": ("dense", "dense_bm25"),
    "dense_bm25_key_tokens_rrf": ("dense", "dense_bm25_rrf"),
}
"""Baselines of a system, where these are not just the dense vectors."""
_BASELINES = {"dense", *(name for names in _COMPARED_WITH.values() for name in names)}


def measure_systems(
    collection: Collection,
    split: str,
    model: KeyTokenModel,
    documents: Embedded,
    queries: Embedded,
    *,
    fitted_on: str = "all documents",
    decoders: Sequence[KeyTokenModel] = (),
    refined: KeyTokenModel | None = None,
    out_of_sample: Mapping[str, KeyTokenModel] | None = None,
    splade: SpladeVectors | None = None,
    sweep: bool = False,
    progress_bar: bool = True,
) -> EvaluationReport:
    """
    Measure key tokens, BM25, the dense vectors, and their combinations on a test collection.

    Dense scores are cosine similarities. BM25 is stemmed and without stop words (`stemmed_bm25`), and by itself also as
    engines have it by default (`default_bm25`). Fusions are sums of scores, each system's scaled to between 0 and 1 for
    the query (min-max), or reciprocal rank fusions (`_rrf`).
    `key_tokens_bm25` and `hybrid` are sums in one request, with BM25 as engines have it: the latter adds cosines, too.
    All systems are compared with the dense vectors, combinations of three also with those of two.

    :param collection: The test collection.
    :param split: Name of its judgements, for the report.
    :param model: The key-token model.
    :param documents: Embeddings of the documents.
    :param queries: Embeddings of the judged queries.
    :param fitted_on: Texts that the model was fitted to, for the report.
    :param decoders: Models to compare it with that differ in their decoder; fitted ones, if any, to the same texts.
    :param refined: The model with its decoder refined.
    :param out_of_sample: Models fitted to other texts, by the name of these texts.
    :param splade: Sparse vectors of the documents and the judged queries, to be compared with.
    :param sweep: Whether to measure different numbers of tokens per document and per query, too.
    :param progress_bar: Whether to show a progress bar.
    """
    with progress_of("Evaluating", "systems", shown=progress_bar) as progress:
        bench = _Bench(collection, documents.embeddings, queries.embeddings, progress)
        started = time.perf_counter()
        bench.encode_documents(model)
        project_seconds = time.perf_counter() - started
        return EvaluationReport(
            data=collection.name,
            split=split,
            embedder=None if model.embedder is None else embedder_name(model.embedder),
            splade=None if splade is None else embedder_name(splade.encoder),
            dimension=model.dimension,
            documents=len(collection.documents),
            queries=len(collection.queries),
            decoder=decoder_name(model),
            fitted_on=fitted_on,
            k_document=model.weighting.k_document,
            m_query=model.weighting.m_query,
            seconds={
                "embed": documents.seconds,
                "fit": model.fit_seconds,
                "refine": (refined or model).refine_seconds,
                "project": project_seconds,
                "splade": None if splade is None else splade.seconds,
            },
            embeddings_cached=documents.cached,
            systems={name: bench.measure(system, name) for name, system in bench.systems(model, splade)},
            decoders=[
                {
                    "decoder": decoder_name(decoder),
                    "fitted_on": fitted_on if decoder.source == "fit" else "nothing",
                    "k_document": k,
                    **bench.measure(
                        bench.key_tokens(decoder.with_weighting(k_document=k, m_query=model.weighting.m_query))
                    ),
                }
                for decoder in (*decoders, model, *([refined] if refined else []))
                for k in DECODER_SIZES
            ],
            controls={name: bench.measure(system) for name, system in bench.controls(model, decoders)},
            refined={name: bench.measure(system, name) for name, system in bench.systems_with(refined)}
            if refined
            else {},
            out_of_sample=[
                {"fitted_on": name, "system": system_name, **bench.measure(system, system_name)}
                for name, other in (out_of_sample or {}).items()
                for system_name, system in bench.systems_with(other)
            ],
            sweep=[
                {
                    "k_document": k,
                    "m_query": m,
                    **bench.measure(bench.key_tokens(model.with_weighting(k_document=k, m_query=m))),
                }
                for k, m in (_sweep(model) if sweep else ())
            ],
        )


class _Bench:
    """Test bench: the collection, its embeddings, and the baselines that all systems are compared with."""

    def __init__(
        self,
        collection: Collection,
        documents: NDArray[np.float32],
        queries: NDArray[np.float32],
        progress: Any,
    ) -> None:
        self._collection = collection
        self._documents, self._queries = documents, queries
        self._texts, self._query_texts = list(collection.documents.values()), list(collection.queries.values())
        self._progress = progress
        self._dense = dense(documents, queries)
        self._bm25 = stemmed_bm25(self._texts, self._query_texts)
        self._bm25_default = default_bm25(self._texts, self._query_texts)
        self._baselines: dict[str, NDArray[np.float64]] = {}

    def encode_documents(self, model: KeyTokenModel) -> TokenRows:
        return model.encode_documents(self._documents, self._texts)

    def key_tokens(self, model: KeyTokenModel) -> System:
        return key_tokens(model, self.encode_documents(model), self._queries, self._query_texts)

    def systems(self, model: KeyTokenModel, splade: SpladeVectors | None) -> Iterator[tuple[str, System]]:
        """Yield all systems, each after those that it is compared with."""
        yield "dense", self._dense
        yield "bm25", self._bm25
        yield "bm25_default", self._bm25_default
        if splade is not None:
            yield "splade", sparse_vectors(splade.documents, splade.queries)
        yield "dense_bm25", min_max(self._dense, self._bm25)
        yield "dense_bm25_rrf", reciprocal_rank_fusion(self._dense, self._bm25)
        yield from self.systems_with(model)

    def systems_with(self, model: KeyTokenModel) -> Iterator[tuple[str, System]]:
        """Yield the systems that a model is part of."""
        ours = self.key_tokens(model)
        yield "key_tokens", ours
        yield "key_tokens_bm25", key_tokens_with_bm25(ours, self._bm25_default)
        yield "hybrid", hybrid(ours, self._bm25_default, self._dense)
        yield "key_tokens_bm25_rrf", reciprocal_rank_fusion(ours, self._bm25)
        yield "dense_bm25_key_tokens", min_max(self._dense, self._bm25, ours)
        yield "dense_bm25_key_tokens_rrf", reciprocal_rank_fusion(self._dense, self._bm25, ours)

    def controls(self, model: KeyTokenModel, decoders: Sequence[KeyTokenModel]) -> Iterator[tuple[str, System]]:
        """Vary one part at a time: the query's literal tokens, the documents' tokens, the decoder."""
        weights = self.encode_documents(model)
        yield "without_query_literals", key_tokens(model, weights, self._queries, None)
        without = model.encode_documents(self._documents)
        yield "documents_without_literals", key_tokens(model, without, self._queries, self._query_texts)
        yield "query_literals_only", key_tokens(model, weights, self._queries, self._query_texts, 0)
        if model.idf is not None:
            literal = literal_tokens(model, self._texts)
            yield "literal_tokens", key_tokens(model, literal, self._queries, self._query_texts)
            yield "literal_tokens_query_literals_only", key_tokens(model, literal, self._queries, self._query_texts, 0)
        for head in decoders:
            if head.source != "fit":
                weights = head.encode_documents(self._documents)
                yield "raw_head_without_literals", key_tokens(head, weights, self._queries, None)

    def measure(self, system: System, name: str = "") -> SystemMeasures:
        """
        Measure a system.

        :param name: Name of the system, which determines its baselines, and whether it is one itself.
        """
        identifiers = list(self._collection.documents)
        run, seconds = {}, []
        for position, query in enumerate(self._collection.queries):
            started = time.perf_counter()
            scores = system.scores(position)
            best = ranking(scores)
            seconds.append(time.perf_counter() - started)
            run[query] = [(identifiers[i], float(scores[i])) for i in best]
        values = measure_queries(self._collection, run)
        if name in _BASELINES:
            self._baselines[name] = values["nDCG@10"]
        self._progress.update()
        return {
            **{measure: float(of_queries.mean()) for measure, of_queries in values.items()},
            "p_values": {
                baseline: paired_p_value(values["nDCG@10"], self._baselines[baseline])
                for baseline in _COMPARED_WITH.get(name, ("dense",))
            },
            "tokens_per_document": system.tokens_per_document,
            "postings_per_document": system.postings_per_document,
            "bytes_per_document": system.nbytes / len(identifiers),
            "ms_per_query": 1000 * float(np.median(seconds)),
        }


def _sweep(model: KeyTokenModel) -> list[tuple[int, int]]:
    """Return pairs `(K, M)`: different `K` with the model's `M`, and different `M` with its `K`."""
    k, m = model.weighting.k_document, model.weighting.m_query
    return sorted({(other, m) for other in SWEEP_K} | {(k, other) for other in SWEEP_M})
