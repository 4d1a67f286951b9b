# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Measures of a ranking, query by query, and whether two systems differ by more than chance."""

from collections.abc import Iterable, Mapping

import ir_measures
import numpy as np
from ir_measures import R, nDCG
from numpy.typing import NDArray
from scipy.stats import permutation_test

from keytok_haystack.evaluation.collection import Collection

MEASURES = (nDCG @ 10, R @ 100)
DEPTH = 100
"""How many documents of a ranking count."""
RESAMPLES = 10_000

Run = Mapping[str, Iterable[tuple[str, float]]]
"""For each query id, `(document id, score)` of what was found."""


def measure_queries(collection: Collection, run: Run) -> dict[str, NDArray[np.float64]]:
    """
    Return each measure of each query of a run, shape `(queries,)` in the order of the judgements.

    A query that the run leaves out has found nothing, which measures 0.
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


def measure_run(collection: Collection, run: Run) -> dict[str, float]:
    """Return the measures of a run, each the mean over all judged queries."""
    return {name: float(values.mean()) for name, values in measure_queries(collection, run).items()}


def paired_p_value(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """
    Return how likely two systems differ in the mean by as much or more, if only chance tells them apart.

    This is the paired two-sided permutation test: if the two systems were one, each query's difference could as well
    have the other sign. Of few queries all sign changes are taken, of more 10,000 random ones, the same in each run.

    :param a: A measure of each query by one system, shape `(queries,)`.
    :param b: The same of the other system.
    """
    if len(a) == 1:
        return 1.0  # its difference is as large with the other sign; scipy asks for two queries
    test = permutation_test(
        (np.asarray(a) - np.asarray(b),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        random_state=np.random.default_rng(0),
    )
    return float(test.pvalue)
