# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Sparse rows over the features of a vocabulary and over words that it has not seen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class TokenRows:
    """
    Sparse rows over the `V` features of a vocabulary and, behind them, over words that it has not seen.

    :param rows: Shape `(n, V + u)`.
    :param unseen: The `u` words, distinct: names of the last columns.
    :param confidences: Shape `(n,)`, how surely the embedding of each row decodes to tokens (`Chance`), if it is known.
    :param literals: Shape `(n, V + u)`, literal counts of the texts of queries, if there are any.
    """

    rows: csr_array
    unseen: tuple[str, ...] = ()
    confidences: NDArray[np.float32] | None = None
    literals: csr_array | None = None

    def __len__(self) -> int:
        """Return the number of rows, `n`."""
        return int(self.rows.shape[0])

    @property
    def known(self) -> csr_array:
        """The rows over the features of the vocabulary alone, shape `(n, V)`."""
        return self.rows[:, : self.rows.shape[1] - len(self.unseen)] if self.unseen else self.rows

    def with_rows(self, rows: csr_array, confidences: NDArray[np.float32] | None = None) -> Self:
        """Return other rows over the same columns."""
        return type(self)(rows, self.unseen, confidences)

    def columns(self, of_unseen: Iterable[int]) -> NDArray[np.int64]:
        """
        Return the column of each entry, shape `(entries,)`, if the unseen words had other columns.

        :param of_unseen: The columns of the `u` words.
        """
        known = self.rows.shape[1] - len(self.unseen)
        columns: NDArray[np.int64] = self.rows.indices.astype(np.int64)
        behind = columns >= known
        columns[behind] = np.array([*of_unseen], dtype=np.int64)[columns[behind] - known]
        return columns

    def onto(self, columns: Mapping[str, int], width: int) -> csr_array:
        """
        Return the rows with the unseen words in other columns; those that have none are left out.

        :param columns: Column of a word, `V` at least.
        :param width: Number of columns.
        """
        moved = self.columns(columns.get(word, -1) for word in self.unseen).astype(np.int32)
        kept = moved >= 0
        indptr = np.concatenate([[0], np.cumsum(kept)])[self.rows.indptr].astype(np.int32)
        onto = csr_array((self.rows.data[kept], moved[kept], indptr), shape=(len(self), width))
        onto.sort_indices()
        return onto
