# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A vocabulary of words: those of a corpus, and any other."""

import json
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np
import regex
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.checks import check_not_one_string, check_texts
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.vocabulary.analysis import Analysis, chunks
from keytok_haystack.vocabulary.languages import detect_language
from keytok_haystack.vocabulary.vocabulary import Vocabulary

MAX_WORDS = 1 << 18
MAX_DECODABLE = 1 << 16
_LONE_LETTER = regex.compile(r"(?<![\w'\u2019.\-])\p{L}(?![\w'\u2019.\-])")
_LETTER = regex.compile(r"\p{L}")
_CACHED_CHUNKS, _CACHED_LENGTH = 1 << 18, 32
_SHORTEST_PLURAL = 5
_PROBE = (
    "Shock-waves in the X-15's flow at Mach 2.5: 1,000 m, C++ and C#, U.S. don't foo_bar e-mail jane@example.com "
    "l'avion naïve Straße ﬁle İstanbul हिन्दी الأمواج волны κύματα 衝撃波のデータ 충격파 คลื่นกระแทก"
)


class WordVocabulary(Vocabulary):
    """
    The words of a corpus as features, and any other word that a text has.

    A feature is a word's normal form (`Analysis`), and is called by the form that is most frequent in the corpus:
    `structures`, not `structur`. The vocabulary is open: a word that it has not seen is a feature all the same, under a
    name that depends on the word alone (`name`), so documents and queries of any later day agree on it.

    :param features: The words, each of a normal form of its own.
    :param analysis: The rules by which a text becomes words.
    :raises ValueError: Two of the words have the same normal form.
    """

    kind = "words"
    is_open = True

    def __init__(self, features: Sequence[str], analysis: Analysis) -> None:
        super().__init__(features)
        self.analysis = analysis
        self._forms = [analysis.normal_form(feature) for feature in self.features]
        self._column_of_form = {form: column for column, form in enumerate(self._forms)}
        for column, form in enumerate(self._forms):
            if (other := self._column_of_form[form]) != column:
                msg = f"'{self.features[column]}' and '{self.features[other]}' are forms of the same word: keep one."
                raise ValueError(msg)
        self._columns_of_chunk: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_texts(cls, texts: Sequence[str], language: str | None = None, *, progress_bar: bool = False) -> Self:
        """
        Read the words of a corpus.

        Of more than 262,144 words, those in the fewest texts are left out, and so remain unseen.

        :param texts: The texts.
        :param language: Language of the texts: name of a Snowball stemmer, such as "english", or "none"; by default it
            is found from the texts (`detect_language`).
        :param progress_bar: Whether to show a progress bar.
        :raises TypeError: A text is not a string, or `texts` is one.
        :raises ValueError: A text is not of whole characters, there is no word in the texts, or the language has no
            stemmer.
        """
        check_not_one_string(texts)
        check_texts(texts)
        language = detect_language(texts) if language is None else language
        analysis = Analysis(language, letters=_capital_letters(texts))
        frequency: Counter[str] = Counter()  # number of texts
        occurrences: Counter[str] = Counter()
        forms: dict[str, str] = {}
        for text in progress_of("Reading words", "texts", shown=progress_bar, things=texts, leave=False):
            words = analysis.words(text)
            occurrences.update(words)
            distinct = set(words)
            forms.update({word: analysis.normal_form(word) for word in distinct if word not in forms})
            frequency.update({forms[word] for word in distinct})
        if not frequency:
            msg = "There is no word in the texts, so there are no features."
            raise ValueError(msg)
        names: dict[str, str] = {}  # each form's most frequent word, of equal ones the shortest
        for word, _ in sorted(occurrences.items(), key=lambda item: (-item[1], len(item[0]), item[0])):
            names.setdefault(forms[word], word)
        kept = sorted(frequency, key=lambda form: (-frequency[form], form))[:MAX_WORDS]
        return cls([names[form] for form in kept], analysis)

    @cached_property
    def decodable(self) -> NDArray[np.bool_]:
        """Whether embeddings can say each word, shape `(V,)`: not numbers, nor words after the first 65,536."""
        has_letter = [_LETTER.search(feature) is not None for feature in self.features[:MAX_DECODABLE]]
        return np.array(has_letter + [False] * (len(self) - len(has_letter)), dtype=bool)

    @property
    def language(self) -> str:
        """Language of the words: name of a Snowball stemmer, or "none"."""
        return self.analysis.language

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the analysis."""
        return self.analysis.settings

    @classmethod
    def from_settings(cls, features: Sequence[str], settings: Mapping[str, Any]) -> Self:
        """Return the vocabulary that has some features and `settings`."""
        return cls(features, Analysis.from_settings(settings))

    @property
    def identity(self) -> bytes:
        """Features, analysis, and what the libraries make of them: all stems, and the words of a sample text."""
        probe = self.analysis.words(_PROBE)
        stems = [self.analysis.normal_form(word) for word in probe]
        return json.dumps([self.features, self.settings, self._forms, probe, stems], sort_keys=True).encode()

    def reordered(self, order: NDArray[np.integer[Any]]) -> Self:
        """Return the same words in another order, shape `(V,)`, a permutation."""
        return type(self)([self.features[i] for i in order], self.analysis)

    def name(self, word: str) -> str:
        """
        Return the name of the feature of a word, case-folded: of a known form, the word that it is called by.

        Any other word is its own name, so that it can be read, which its stem could not; English ones are singular.
        """
        form = self.analysis.normal_form(word)
        if (column := self._column_of_form.get(form)) is not None:
            return self.features[column]
        singular = _singular(word) if self.language == "english" else word
        return singular if self.analysis.normal_form(singular) == form else word

    def _count(self, texts: list[str]) -> TokenRows:
        unseen: dict[str, int] = {}
        columns_of = _Columns(self._columns, unseen)
        columns = array("i")
        indptr = [0]
        for text in texts:
            columns.extend(chain.from_iterable(map(columns_of.__getitem__, chunks(text))))
            indptr.append(len(columns))
        width = len(self) + len(unseen)
        ones = np.ones(len(columns), dtype=np.float32)
        counts = csr_array((ones, np.array(columns, dtype=np.int32), np.array(indptr)), shape=(len(texts), width))
        counts.sum_duplicates()
        return TokenRows(counts, tuple(unseen))

    def _columns(self, chunk: str, unseen: dict[str, int]) -> tuple[int, ...]:
        """Return the column of each word of a chunk; words that have none yet get one behind the features."""
        if (known := self._columns_of_chunk.get(chunk)) is not None:
            return known
        columns = []
        for word in self.analysis.words_of_chunk(chunk):
            name = self.name(word)
            column = self._column_of.get(name)
            columns.append(len(self) + unseen.setdefault(name, len(unseen)) if column is None else column)
        found = tuple(columns)
        if len(chunk) <= _CACHED_LENGTH and all(column < len(self) for column in found):
            if len(self._columns_of_chunk) >= _CACHED_CHUNKS:
                self._columns_of_chunk.clear()
            self._columns_of_chunk[chunk] = found
        return found


class _Columns(dict[str, tuple[int, ...]]):
    """
    Columns of the chunks of some texts, found out when a chunk is first asked for.

    :param find: Returns the columns of a chunk.
    :param unseen: Columns of the words that have none otherwise, which `find` adds to.
    """

    def __init__(self, find: Callable[[str, dict[str, int]], tuple[int, ...]], unseen: dict[str, int]) -> None:
        super().__init__()
        self._find = find
        self._unseen = unseen

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        found = self[chunk] = self._find(chunk, self._unseen)
        return found


def _singular(word: str) -> str:
    """Return an English word without the ending of a plural, about as the S stemmer does (Harman 1991)."""
    if len(word) < _SHORTEST_PLURAL or (word.endswith(("ss", "us", "is", "ses")) and not word.endswith("sses")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes", "oes")):
        return word[:-2]
    return word.removesuffix("s")


def _capital_letters(texts: Sequence[str]) -> frozenset[str]:
    """Return the letters that stand alone and are then more often capital than small: those that are names."""
    capitals: Counter[str] = Counter()
    for text in texts:
        for letter in _LONE_LETTER.findall(unicodedata.normalize("NFKC", text)):
            capitals[letter.casefold()] += 1 if letter.isupper() else -1
    return frozenset(letter for letter, excess in capitals.items() if excess > 0)
