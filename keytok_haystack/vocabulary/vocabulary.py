# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From a tokenizer's ids to features: the readable surface forms that documents and queries share."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from tokenizers import Tokenizer

from keytok_haystack.sparse_vectors.rank_features import escape_feature
from keytok_haystack.utils.checks import check_not_one_string, check_texts
from keytok_haystack.vocabulary.tokenizers import SurfaceForms, load_tokenizer

_SLICE_CHARACTERS = 1 << 22


class Vocabulary:
    """
    The features of a tokenizer: `V` surface forms, each shared by one or more token ids.

    Ids that differ only in case, in their leading-space marker or in their spelling as bytes are one feature.
    Punctuation, special tokens, unused tokens and fragments of a character have no feature. WordPiece continuations
    keep their `##`: folding them into whole words measures no better (docs/research/experiments.md).
    """

    def __init__(self, tokenizer: Tokenizer, features: Sequence[str], feature_of_id: NDArray[np.int32]) -> None:
        """
        Create a vocabulary from its parts; most callers want `from_tokenizer`.

        :param tokenizer: The tokenizer; it is copied, and the copy neither truncates nor pads.
        :param features: `V` distinct surface forms.
        :param feature_of_id: Shape `(ids,)`, the feature of each token id, -1 for none.
        """
        self.features = tuple(features)
        self.feature_of_id = feature_of_id
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def from_tokenizer(cls, tokenizer: "Tokenizer | str | Path", *, fold: bool = True) -> "Vocabulary":
        """
        Read the features of a tokenizer.

        :param tokenizer: A tokenizer of the `tokenizers` package, or the path of a `tokenizer.json` or of the folder
            that holds it.
        :param fold: Whether ids share features. If not, each id is a feature, also those of punctuation and special
            tokens, spelled as its characters with white space made visible: to look into a head, not to retrieve with.
        :raises FileNotFoundError: There is no `tokenizer.json` at the path.
        :raises ValueError: The file is not a tokenizer, or none of its tokens is a readable feature.
        """
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = load_tokenizer(Path(tokenizer))
        surface = SurfaceForms(tokenizer)
        ids = tokenizer.get_vocab(with_added_tokens=True)
        feature_of_id = np.full(max(ids.values(), default=-1) + 1, -1, dtype=np.int32)
        if not fold:
            spellings = {f"<{i}>": i for i in set(range(len(feature_of_id))) - set(ids.values())}
            for token, token_id in ids.items():
                spelling = surface.spelling(token, token_id)
                spellings[spelling if spelling not in spellings else f"{spelling}<{token_id}>"] = token_id
            features = sorted(spellings, key=spellings.__getitem__)
            return cls(tokenizer, features, np.arange(len(features), dtype=np.int32))
        index: dict[str, int] = {}
        for token, token_id in sorted(ids.items(), key=lambda item: item[1]):
            if (feature := surface(token, token_id)) is not None:
                feature_of_id[token_id] = index.setdefault(feature, len(index))
        if not index:
            msg = "The tokenizer has no token with a letter, a digit or a symbol, so there are no features."
            raise ValueError(msg)
        return cls(tokenizer, list(index), feature_of_id)

    def __len__(self) -> int:
        """Return the number of features, `V`."""
        return len(self.features)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The features as engine keys: `%` and `.` escaped."""
        return tuple(map(escape_feature, self.features))

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, serialized as a `tokenizer.json`."""
        return str(self._tokenizer.to_str())

    def order_with_first(self, first: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the order, shape `(V,)`, in which some features, shape `(v,)`, distinct, come before all others."""
        return np.concatenate([first, np.setdiff1d(np.arange(len(self)), first)]).astype(np.int64)

    def reordered(self, order: NDArray[np.integer[Any]]) -> "Vocabulary":
        """Return the same features in another order, shape `(V,)`, a permutation."""
        position = np.full(len(self) + 1, -1, dtype=np.int32)  # the last entry serves feature -1
        position[order] = np.arange(len(self), dtype=np.int32)
        return Vocabulary(self._tokenizer, [self.features[i] for i in order], position[self.feature_of_id])

    def literal_counts(self, texts: Iterable[str], *, first: int = 0) -> csr_array:
        """
        Count the literal features of each text: the features of the tokens that it is made of.

        :param texts: `n` texts; an empty one has no features.
        :param first: The position of the first text in the stream that it comes from, for messages.
        :returns: Shape `(n, V)`, float32.
        :raises TypeError: A text is not a string, or `texts` is one.
        :raises ValueError: A text is not of whole characters (`check_texts`).
        """
        check_not_one_string(texts)
        texts = list(texts)
        check_texts(texts, first)
        pieces = [self._count(piece) for piece in _slices(texts)]
        return pieces[0] if len(pieces) == 1 else csr_array(vstack(pieces, format="csr"))

    def _count(self, texts: list[str]) -> csr_array:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        rows = np.repeat(np.arange(len(texts)), [len(encoding) for encoding in encodings])
        ids = np.fromiter((i for encoding in encodings for i in encoding.ids), dtype=np.int64, count=len(rows))
        features = self.feature_of_id[ids]
        known = features >= 0
        entries, counts = np.unique(rows[known] * len(self) + features[known], return_counts=True)
        indptr = np.searchsorted(entries, np.arange(len(texts) + 1) * len(self))
        columns = (entries % len(self)).astype(np.int32)
        return csr_array((counts.astype(np.float32), columns, indptr.astype(np.int32)), shape=(len(texts), len(self)))


def _slices(texts: list[str]) -> Iterator[list[str]]:
    """Cut texts into slices of bounded length: a tokenizer's output takes up many times the memory of its input."""
    start, length = 0, 0
    for position, text in enumerate(texts):
        if length > _SLICE_CHARACTERS:
            yield texts[start:position]
            start, length = position, 0
        length += len(text)
    yield texts[start:]
