# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A vocabulary of tokens: the surface forms of a tokenizer's ids, for heads of language models."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from tokenizers import Tokenizer

from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.vocabulary.tokenizers import (
    SurfaceForms,
    TokenizerError,
    checked_ids,
    copied_tokenizer,
    load_tokenizer,
    panics_as_errors,
    parsed_tokenizer,
)
from keytok_haystack.vocabulary.vocabulary import Vocabulary

_SLICE_CHARACTERS = 1 << 22


class TokenizerVocabulary(Vocabulary):
    """
    The features of a tokenizer: `V` surface forms, each shared by one or more token ids.

    Ids that differ only in case, in their leading-space marker or in their spelling as bytes are one feature.
    Punctuation, special tokens, unused tokens and fragments of a character have no feature. WordPiece continuations
    keep their `##`.
    """

    kind = "tokens"
    is_open = False

    def __init__(self, tokenizer: Tokenizer, features: Sequence[str], feature_of_id: NDArray[np.int32]) -> None:
        """
        Create a vocabulary from its parts; most callers want `from_tokenizer`.

        :param tokenizer: The tokenizer; it is copied, and the copy neither truncates nor pads.
        :param features: `V` distinct surface forms.
        :param feature_of_id: Shape `(ids,)`, the feature of each token id, -1 for none.
        :raises TokenizerError: The tokenizer cannot be copied.
        """
        super().__init__(features)
        self.feature_of_id = feature_of_id
        self._tokenizer = copied_tokenizer(tokenizer)

    @classmethod
    def from_tokenizer(cls, tokenizer: "Tokenizer | str | Path", *, fold: bool = True) -> Self:
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
        ids = checked_ids(tokenizer)
        surface = SurfaceForms(tokenizer)
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

    @property
    def decodable(self) -> NDArray[np.bool_]:
        """Whether embeddings can say each token, shape `(V,)`: all of them."""
        return np.ones(len(self), dtype=bool)

    @property
    def settings(self) -> dict[str, Any]:
        """The tokenizer, and the feature of each of its ids."""
        return {"tokenizer": self._tokenizer.to_str(), "feature_of_id": self.feature_of_id.tolist()}

    @classmethod
    def from_settings(cls, features: Sequence[str], settings: Mapping[str, Any]) -> Self:
        """Return the vocabulary that has some features and `settings`."""
        tokenizer, feature_of_id = settings["tokenizer"], settings["feature_of_id"]
        if not isinstance(tokenizer, str):
            msg = "its tokenizer is no string"
            raise TokenizerError(msg)
        parsed = parsed_tokenizer(tokenizer.encode())
        ids = max(parsed.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        numbers = np.array(feature_of_id)
        is_table = numbers.ndim == 1 and numbers.dtype == np.int64 and len(numbers) >= ids
        if not is_table or (numbers < -1).any() or (numbers >= len(features)).any():
            msg = "it does not say of each token what its feature is"
            raise TokenizerError(msg)
        return cls(parsed, features, numbers.astype(np.int32))

    @property
    def identity(self) -> bytes:
        """
        Features, the feature of each id, and the tokens of a sample of the features.

        The latter represent the tokenizer's rules, whose spelling as JSON differs between versions of `tokenizers`.
        """
        words = self.features[:: max(1, len(self) // 2000)]
        probe = self.literal_counts([" ".join(words), "-".join(words).upper(), "".join(words)]).rows
        arrays = (self.feature_of_id, probe.indptr, probe.indices, probe.data)
        return json.dumps(self.features).encode() + b"".join(array.astype(np.int64).tobytes() for array in arrays)

    def reordered(self, order: NDArray[np.integer[Any]]) -> Self:
        """Return the same features in another order, shape `(V,)`, a permutation."""
        position = np.full(len(self) + 1, -1, dtype=np.int32)  # the last entry serves feature -1
        position[order] = np.arange(len(self), dtype=np.int32)
        return type(self)(self._tokenizer, [self.features[i] for i in order], position[self.feature_of_id])

    def words_of_pieces(self, text: str) -> dict[str, str]:
        """Return, for each feature that is a piece of a word of a text, the first such word."""
        with panics_as_errors():
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        pieces: defaultdict[int, list[int]] = defaultdict(list)
        for position, number in enumerate(encoding.word_ids):
            if number is not None:
                pieces[number].append(position)
        words: dict[str, str] = {}
        for positions in pieces.values():
            ids = [encoding.ids[position] for position in positions]
            features = [feature for feature in self.feature_of_id[ids].tolist() if feature >= 0]
            start, stop = encoding.offsets[positions[0]][0], encoding.offsets[positions[-1]][1]
            word = text[start:stop].strip().casefold()
            if len(features) > 1 and word.isalnum():
                for feature in features:
                    words.setdefault(self.features[feature], word)
        return words

    def _count(self, texts: list[str]) -> TokenRows:
        pieces = [self._count_slice(piece) for piece in _slices(texts)]
        return TokenRows(pieces[0] if len(pieces) == 1 else csr_array(vstack(pieces, format="csr")))

    def _count_slice(self, texts: list[str]) -> csr_array:
        with panics_as_errors():
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
