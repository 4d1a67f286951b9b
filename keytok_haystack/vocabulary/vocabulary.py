# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From a text to features: what both kinds of vocabulary, words and tokens, have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.sparse_vectors.rank_features import escape_feature
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.checks import check_not_one_string, check_texts

_INDICES = 2**31 - 1  # indices of sparse embeddings are below


class Vocabulary(ABC):
    """
    The `V` features that texts are made of: readable, distinct, and the same for documents and queries.

    There are two kinds. `WordVocabulary` has the words of a corpus, and is open: words that it has not seen are
    features, too. `TokenizerVocabulary` has the tokens of a language model, whose head gives each a logit.

    :param features: The features, distinct.
    """

    kind: ClassVar[str]
    """Name of the kind of vocabulary in a model folder."""
    is_open: ClassVar[bool]
    """Whether words that are not among the features are features of a text all the same."""

    def __init__(self, features: Sequence[str]) -> None:
        self.features = tuple(features)

    def __len__(self) -> int:
        """Return the number of features, `V`."""
        return len(self.features)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The features as engine keys: `%` and `.` escaped."""
        return tuple(map(escape_feature, self.features))

    def columns_of(self, features: Iterable[str]) -> list[int]:
        """Return the columns of features; those that the vocabulary has not seen are left out."""
        return [self._column_of[feature] for feature in features if feature in self._column_of]

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {feature: column for column, feature in enumerate(self.features)}

    @staticmethod
    def check_features(features: Any) -> None:
        """
        Require distinct features.

        :raises ValueError: They are no list of distinct strings of whole characters.
        """
        try:
            is_valid = isinstance(features, list) and len(set(features)) == len(features)
            "".join(features).encode()  # what is no string, or half a surrogate pair, fails
        except (TypeError, UnicodeEncodeError):
            is_valid = False
        if not is_valid:
            msg = "the features of a vocabulary must be a list of distinct strings of whole characters"
            raise ValueError(msg)

    @property
    @abstractmethod
    def decodable(self) -> NDArray[np.bool_]:
        """Whether embeddings can say each feature, shape `(V,)`: the others are found in texts only."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the vocabulary is made of beside its features, for JSON."""

    @classmethod
    @abstractmethod
    def from_settings(cls, features: Sequence[str], settings: Mapping[str, Any]) -> Self:
        """Return the vocabulary that has some features and `settings`."""

    @property
    @abstractmethod
    def identity(self) -> bytes:
        """All that decides which features a text has, the behaviour of the libraries included."""

    @abstractmethod
    def reordered(self, order: NDArray[np.integer[Any]]) -> Self:
        """Return the same features in another order, shape `(V,)`, a permutation."""

    def order_with_first(self, first: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the order, shape `(V,)`, in which some features, shape `(v,)`, distinct, come before all others."""
        return np.concatenate([first, np.setdiff1d(np.arange(len(self)), first)]).astype(np.int64)

    def literal_counts(self, texts: Iterable[str], *, first: int = 0) -> TokenRows:
        """
        Count the literal features of each text: those that it is made of.

        :param texts: `n` texts; an empty one has no features.
        :param first: The position of the first text in the stream that it comes from, for messages.
        :returns: `n` rows, float32.
        :raises TypeError: A text is not a string, or `texts` is one.
        :raises ValueError: A text is not of whole characters (`check_texts`), or the tokenizer fails.
        """
        check_not_one_string(texts)
        texts = list(texts)
        check_texts(texts, first)
        return self._count(texts)

    @abstractmethod
    def _count(self, texts: list[str]) -> TokenRows:
        """Count the literal features of checked texts."""

    def may_lack_words_of(self, text: str) -> bool:
        """
        Return whether a text without literal features may have words that count all the same.

        Tokenizers that read the bytes of a script have no features for its words. Words of a corpus are open, so that
        a text without any is empty, or of stop words.
        """
        return not self.is_open and any(map(str.isalnum, text))

    def may_be_unseen(self, index: int) -> bool:
        """Return whether an index of a `SparseEmbedding` can be that of a word that the vocabulary has not seen."""
        return self.is_open and len(self) <= index < _INDICES

    def unseen_index(self, word: str) -> int:
        """
        Return the index of a word that the vocabulary has not seen in a `SparseEmbedding`, from `V` to `2**31 - 2`.

        It is a hash of the word, and so the same at any time. Of a million such words, about one in two thousand shares
        its index with another.
        """
        digest = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        return len(self) + digest % (_INDICES - len(self))
