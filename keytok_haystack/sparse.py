# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Sparse rows: selecting the top-K, weighting, adding a query's literal features, and turning rows into dicts."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

LITERAL_WEIGHT = 2.0  # the weight of the rarest literal feature, in units of the query's strongest key token


def top_k(logits: NDArray[np.float32], k: int, minimum: float = 0.0) -> csr_array:
    """
    Keep the `k` largest entries of each row that exceed `minimum`; of equal ones, those of the lowest features.

    :param logits: Shape `(n, V)`.
    :param k: At least 1; more than `V` keeps all.
    :returns: Shape `(n, V)`, float32, canonical (columns ascending).
    :raises ValueError: `k` is less than 1.
    """
    if k < 1:
        msg = f"At least 1 entry must be kept, but k is {k}."
        raise ValueError(msg)
    size = logits.shape[1]
    kept = logits > minimum
    if k < size:
        threshold = _kth_largest(logits, k)
        kept &= logits >= threshold[:, None]
        surplus = np.count_nonzero(kept, axis=1) - k
        for row in np.flatnonzero(surplus > 0):
            tied = np.flatnonzero(logits[row] == threshold[row])
            kept[row, tied[-surplus[row] :]] = False
    flat = np.flatnonzero(kept)
    columns = (flat % size).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))]).astype(np.int32)
    return csr_array((logits.reshape(-1)[flat], columns, indptr), shape=logits.shape)


def _kth_largest(logits: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """
    Return the k-th largest entry of each row, shape `(n,)`.

    Where an embedder has already brought torch into the process, its multi-threaded selection is 2 to 3 times as fast
    as numpy's partition; selecting is exact, so both give the same value.
    """
    torch = sys.modules.get("torch")
    # a few rows are not worth handing over; another thread may still be importing torch
    if torch is None or len(logits) < 16 or not (hasattr(torch, "topk") and hasattr(torch, "from_numpy")):
        partitioned: NDArray[np.float32] = np.partition(logits, logits.shape[1] - k, axis=1)[:, logits.shape[1] - k]
        return partitioned
    selected: NDArray[np.float32] = torch.topk(torch.from_numpy(logits), k, dim=1).values[:, -1].numpy()
    return selected


def row_maxima(rows: csr_array) -> NDArray[np.float32]:
    """Return the largest entry of each row of non-negative entries, 0 where a row is empty; shape `(n,)`."""
    maxima = np.zeros(rows.shape[0], dtype=np.float32)
    filled = np.flatnonzero(np.diff(rows.indptr))
    if len(filled):
        maxima[filled] = np.maximum.reduceat(rows.data, rows.indptr[filled])
    return maxima


def scale_rows(rows: csr_array, factors: NDArray[np.floating]) -> csr_array:
    """Multiply each row by its factor, shape `(n,)`."""
    data = rows.data * np.repeat(factors.astype(np.float32), np.diff(rows.indptr))
    return csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def add_literals(aligned: csr_array, literals: csr_array, idf: NDArray[np.float32] | None) -> csr_array:
    """
    Join a query's aligned tokens with its literal tokens (section 5 of the paper takes the union of the two sets).

    Each distinct literal feature adds `2 * idf / max idf` times the weight of the query's strongest aligned token, or
    that weight itself where no idf is known. A query without aligned tokens is its literals alone.

    :param aligned: Shape `(n, V)`, non-negative.
    :param literals: Shape `(n, V)`, the literal features; counts are ignored.
    :param idf: Shape `(V,)`, or None.
    """
    relative = np.ones(literals.shape[1], dtype=np.float32) if idf is None else LITERAL_WEIGHT * idf / idf.max()
    strongest = row_maxima(aligned)
    strongest[strongest == 0] = 1.0
    weighted = csr_array((relative[literals.indices], literals.indices, literals.indptr), shape=literals.shape)
    joined = csr_array(aligned + scale_rows(weighted, strongest))
    joined.sort_indices()
    return joined


def rows_to_dicts(rows: csr_array, keys: Sequence[str]) -> list[dict[str, float]]:
    """Turn each row, shape `(n, V)`, into `{key: weight}` without zeros, strongest first."""
    dicts = []
    for start, stop in pairwise(rows.indptr.tolist()):
        order = start + np.argsort(-rows.data[start:stop], kind="stable")
        weights = rows.data[order].tolist()
        pairs = zip(rows.indices[order].tolist(), weights, strict=True)
        dicts.append({keys[column]: weight for column, weight in pairs if weight})
    return dicts


def dicts_to_rows(dicts: Iterable[Mapping[str, float]], position: Mapping[str, int]) -> csr_array:
    """
    Turn `{key: weight}` dicts into rows, float64.

    :param position: The column of each key.
    :raises KeyError: A key has no column.
    """
    indptr: list[int] = [0]
    columns: list[int] = []
    weights: list[float] = []
    for tokens in dicts:
        columns.extend(position[key] for key in tokens)
        weights.extend(tokens.values())
        indptr.append(len(columns))
    rows = csr_array(
        (np.array(weights, dtype=np.float64), np.array(columns, dtype=np.int32), np.array(indptr, dtype=np.int32)),
        shape=(len(indptr) - 1, len(position)),
    )
    rows.sort_indices()
    return rows
