# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Measures of a ranking, query by query, and the significance of differences between two systems."""

from collections.abc import Iterable, Mapping

import ir_measures
import numpy as np
from ir_measures import R, nDCG
from numpy.typing import NDArray
from scipy.stats import permutation_test

from keytok_haystack.evaluation.collection import Collection

MEASURES = (nDCG @ 10, R @ 100)
DEPTH = 100
"""Number of documents of a ranking that are measured."""
RESAMPLES = 10_000

Run = Mapping[str, Iterable[tuple[str, float]]]
"""For each query id, pairs `(document id, score)` of the documents found."""


def measure_queries(collection: Collection, run: Run) -> dict[str, NDArray[np.float64]]:
    """
    Return each measure of each query of a run, shape `(queries,)` in the order of the judgements.

    A query that is missing from the run has found nothing, so its measures are 0.
    """
    position = {query: i for i, query in enumerate(collection.qrels)}
    values = {str(measure): np.zeros(len(position)) for measure in MEASURES}
    found = [ir_measures.ScoredDoc(query, *hit) for query, ranking in run.items() for hit in ranking]
    qrels = [
        ir_measures.Qrel(query, document, relevance)
        for query, judgements in collection.qrels.items()
        for document, relevance in judgements.items()
    ]
    for metric in ir_measures.iter_calc(MEASURES, qrels, found):
        values[str(metric.measure)][position[metric.query_id]] = metric.value
    return values


def ranking(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the positions of the best 100 documents that are found, best first, from the scores of all, `(n,)`."""
    best: NDArray[np.int64] = np.argpartition(-scores, min(DEPTH, len(scores)) - 1)[:DEPTH]
    best = best[scores[best] != 0]
    return best[np.argsort(-scores[best], kind="stable")]


def measure_run(collection: Collection, run: Run) -> dict[str, float]:
    """Return the measures of a run, each the mean over all judged queries."""
    return {name: float(values.mean()) for name, values in measure_queries(collection, run).items()}


def mean_ndcg(collection: Collection, scores: NDArray[np.floating]) -> float:
    """Return the mean nDCG@10 of scores, shape `(queries, documents)`; a score of 0 means not found."""
    identifiers = list(collection.documents)
    run = {
        query: [(identifiers[i], float(row[i])) for i in ranking(row)]
        for query, row in zip(collection.queries, scores, strict=True)
    }
    return measure_run(collection, run)["nDCG@10"]


def paired_p_value(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """
    Return the p-value of the difference between two systems in a paired two-sided permutation test.

    If the systems did not differ, the difference of each query could as well have the other sign. For few queries all
    changes of signs are tried, for more 10,000 random ones, the same in each run.

    :param a: A measure of each query by one system, shape `(queries,)`.
    :param b: The same measure by the other system, shape `(queries,)`.
    """
    if len(a) == 1:
        return 1.0  # with the other sign the difference is as large; scipy requires two queries
    test = permutation_test(
        (np.asarray(a) - np.asarray(b),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        random_state=np.random.default_rng(0),
    )
    return float(test.pvalue)
