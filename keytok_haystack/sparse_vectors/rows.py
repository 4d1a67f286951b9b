# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of sparse vectors: top-k selection, scaling, and conversion from and to dicts."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SparseRow = tuple[NDArray[np.int32], NDArray[np.float32]]
"""The columns of a row, ascending, and its entries there."""
_GROUP = 16  # entries of which only the largest is compared


def top_k(rows: NDArray[np.float32] | csr_array, k: int) -> csr_array:
    """
    Keep the `k` largest positive entries of each row; of equal ones, those of the lowest features.

    :param rows: Shape `(n, V)`, dense (logits), or sparse with positive entries (weights).
    :param k: Number of entries to keep, at least 1; more than `V` keeps all.
    :returns: Shape `(n, V)`, float32, canonical (columns ascending).
    :raises ValueError: `k` is less than 1.
    """
    check_k(k)
    return _top_k_of_sparse(rows, k) if isinstance(rows, csr_array) else _top_k_of_dense(rows, k)


def check_k(k: int) -> None:
    """
    Require a number of entries to keep.

    :raises ValueError: It is less than 1.
    """
    if k < 1:
        msg = f"At least 1 entry must be kept, but k is {k}."
        raise ValueError(msg)


def lower_bound_of_kth(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """
    Return a value that at least `k` entries of each row reach, and not many more.

    `k` groups of entries have one as large as the k-th of the groups' maxima, which is sooner found than the k-th of
    all entries.

    :param values: Shape `(..., n)`.
    :param k: Number of entries, from 1 to `n`.
    :returns: Shape `(...)`.
    """
    grouped = values[..., : values.shape[-1] // _GROUP * _GROUP]
    maxima = grouped.reshape(*values.shape[:-1], _GROUP, grouped.shape[-1] // _GROUP).max(axis=-2)
    at_least = maxima if k <= maxima.shape[-1] else values
    bound: NDArray[np.float32] = np.partition(at_least, -k, axis=-1)[..., -k]
    return bound


def _top_k_of_dense(logits: NDArray[np.float32], k: int) -> csr_array:
    size = logits.shape[1]
    candidates = logits > 0
    if k < size:
        candidates &= logits >= lower_bound_of_kth(logits, k)[:, None]
    flat = np.flatnonzero(candidates)
    columns = (flat % size).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(candidates, axis=1))]).astype(np.int32)
    return _top_k_of_sparse(csr_array((logits.reshape(-1)[flat], columns, indptr), shape=logits.shape), k)


def _top_k_of_sparse(rows: csr_array, k: int) -> csr_array:
    lengths = np.diff(rows.indptr)
    if not (lengths > k).any():
        return rows
    row_of_entry = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rows.indices, -rows.data, row_of_entry))
    rank = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], lengths)
    kept = np.sort(order[rank < k])
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, k))]).astype(np.int32)
    return csr_array((rows.data[kept], rows.indices[kept], indptr), shape=rows.shape)


def add_rows(dense: NDArray[np.float32], rows: csr_array) -> None:
    """Add sparse rows to dense ones, shape `(n, V)` both, in place."""
    dense[np.repeat(np.arange(len(dense)), np.diff(rows.indptr)), rows.indices] += rows.data


def row_maxima(rows: csr_array) -> NDArray[np.float32]:
    """Return the largest entry of each row of non-negative entries, 0 where a row is empty; shape `(n,)`."""
    maxima = np.zeros(rows.shape[0], dtype=np.float32)
    filled = np.flatnonzero(np.diff(rows.indptr))
    if len(filled):
        maxima[filled] = np.maximum.reduceat(rows.data, rows.indptr[filled])
    return maxima


def row_norms(rows: csr_array) -> NDArray[np.float32]:
    """Return the Euclidean norm of each row, shape `(n,)`."""
    squares = csr_array((np.square(rows.data), rows.indices, rows.indptr), shape=rows.shape)
    norms: NDArray[np.float32] = np.sqrt(np.asarray(squares.sum(axis=1)).ravel())
    return norms


def split_rows(rows: csr_array) -> list[SparseRow]:
    """Return each row of a matrix, shape `(n, V)`."""
    return [(rows.indices[start:stop], rows.data[start:stop]) for start, stop in pairwise(rows.indptr.tolist())]


def join_rows(rows: Sequence[SparseRow], width: int) -> csr_array:
    """Return the matrix, shape `(n, width)`, that has some rows."""
    indptr = np.cumsum([0, *(len(columns) for columns, _ in rows)]).astype(np.int32)
    columns = np.concatenate([np.zeros(0, np.int32), *(columns for columns, _ in rows)])
    data = np.concatenate([np.zeros(0, np.float32), *(entries for _, entries in rows)])
    return csr_array((data, columns, indptr), shape=(len(rows), width))


def scale_rows(rows: csr_array, factors: NDArray[np.floating]) -> csr_array:
    """Multiply each row by its factor, shape `(n,)`."""
    data = rows.data * np.repeat(factors.astype(np.float32), np.diff(rows.indptr))
    return csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def scale_columns(rows: csr_array, factors: NDArray[np.float32]) -> csr_array:
    """
    Multiply each column by its factor.

    :param rows: Shape `(n, W)`.
    :param factors: Shape `(W,)`, or fewer, of which the last is the factor of all further columns.
    """
    data = rows.data * factors[np.minimum(rows.indices, len(factors) - 1)]
    return csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def rows_to_dicts(
    rows: csr_array,
    keys: Sequence[str],
    further_keys: Sequence[str] = (),
    *,
    entries: NDArray[np.floating] | None = None,
) -> list[dict[str, float]]:
    """
    Turn each row into `{key: weight}` without zeros, strongest first.

    :param rows: Shape `(n, V + u)`.
    :param keys: Keys of the first `V` columns.
    :param further_keys: Keys of the others.
    :param entries: The entries of the rows, rounded, say; by default as they are.
    """
    known = len(keys)
    entries = rows.data if entries is None else entries
    dicts = []
    for start, stop in pairwise(rows.indptr.tolist()):
        order = start + np.argsort(-entries[start:stop], kind="stable")
        weights = entries[order].tolist()
        pairs = zip(rows.indices[order].tolist(), weights, strict=True)
        dicts.append({keys[c] if c < known else further_keys[c - known]: weight for c, weight in pairs if weight})
    return dicts


def dicts_to_rows(dicts: Iterable[Mapping[str, float]], position: Mapping[str, int]) -> csr_array:
    """
    Turn `{key: weight}` dicts into rows, float64.

    :param position: Column of each key.
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
