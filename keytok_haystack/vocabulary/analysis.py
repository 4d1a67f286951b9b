# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From a text to its words, and from a word to its normal form."""

import re
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import regex

from keytok_haystack.vocabulary.languages import NO_LANGUAGE, check_language, stemmer_of, stop_words_of

MAX_LENGTH = 64
# soft hyphens, joiners and variation selectors are not seen, and a dot on the i of a capital is not written
_INVISIBLE = regex.compile(r"[\u00ad\u200d\u20e3\ufe00-\ufe0f]|(?<=i)\u0307")


def _chunk_pattern(letter: str, first: str) -> str:
    """Return the pattern of a chunk, from those of a letter and of what a word can begin with."""
    part = rf"{first}\w*+(?:(?<=\d)[.,](?=\d)\w++)*+"  # a number's points and commas belong to it
    return rf"(?<!\w){letter}(?:(?:\.{letter})+|\+\+|\#)(?![\w+\#])|{part}(?:-{part})*+"


_CHUNKS = regex.compile(_chunk_pattern(r"\p{L}", r"[\p{L}\p{N}_]"))
_ASCII_CHUNKS = re.compile(_chunk_pattern("[a-z]", r"\w"), re.ASCII)  # the same, in half the time
_JOINTS = regex.compile(r"[-_]+")
_DIGIT = regex.compile(r"\d")
_LETTERS = regex.compile(r"[\p{L}\p{M}\u200c]+")
# scripts that are written without spaces, and Hangul, whose words carry their particles
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30fc\u3005\u3006]+"
)
_GRAPHEMES = regex.compile(r"\X")


class Analysis:
    """
    The rules by which a text becomes words, and a word its normal form.

    A text is read in Unicode's compatibility form (NFKC), case-folded. Words are runs of letters, marks and digits;
    points and commas inside a number belong to it, as do points between single letters (`u.s`) and what makes `c++` and
    `c#`. What hyphens and underscores join is split; with a digit, an underscore or a single letter in it, it is also a
    word as a whole: `x-15`, `foo_bar`, `x-ray`. Texts in scripts without spaces, and Korean ones, become overlapping
    pairs of characters, as by Lucene's CJK analyzer. Stop words are left out, and words of one letter or digit, except
    some letters. Words longer than 64 characters are cut off there.

    The normal form of a word is its Snowball stem; a word with other characters than letters is its own.

    :param language: Language of the texts: name of a Snowball stemmer, or "none", in which words are not stemmed.
    :param stop_words: Words to leave out; by default those of the language.
    :param letters: Single letters that are words, such as "c" where texts are about the language C.
    :raises ValueError: The language has no stemmer.
    """

    def __init__(
        self,
        language: str = NO_LANGUAGE,
        stop_words: frozenset[str] | None = None,
        letters: frozenset[str] = frozenset(),
    ) -> None:
        check_language(language)
        listed = stop_words_of(language) if stop_words is None else stop_words
        self.language = language
        self.stop_words = frozenset(map(folded, listed))
        self.letters = letters
        # PyStemmer's stemmers have a state, but hold the GIL while they stem: threads can share one
        self._stemmer = stemmer_of(language)

    def __reduce__(self) -> tuple[type[Self], tuple[str, frozenset[str], frozenset[str]]]:
        """Leave the stemmer out of pickles and copies, which do not know it."""
        return type(self), (self.language, self.stop_words, self.letters)

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters, for JSON."""
        return {
            "language": self.language,
            "stop_words": sorted(self.stop_words),
            "letters": sorted(self.letters),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """
        Return the analysis that has some `settings`.

        :raises ValueError: They are not of the types that they should be.
        """
        words = [settings["stop_words"], settings["letters"]]
        if not all(isinstance(some, list) and all(isinstance(word, str) for word in some) for some in words):
            msg = "Stop words and letters must be lists of words."
            raise ValueError(msg)
        return cls(settings["language"], frozenset(settings["stop_words"]), frozenset(settings["letters"]))

    def words(self, text: str) -> list[str]:
        """Return the words of a text, case-folded, in their order; a compound comes behind its parts."""
        return [word for chunk in chunks(text) for word in self.words_of_chunk(chunk)]

    def words_of_chunk(self, chunk: str) -> list[str]:
        """Return the words of a chunk of a text (`chunks`)."""
        return [word for word in _split(chunk) if word not in self.stop_words and self._is_long_enough(word)]

    def normal_form(self, word: str) -> str:
        """Return the normal form of a word."""
        if self._stemmer is None or not _LETTERS.fullmatch(word):
            return word
        return str(self._stemmer.stemWord(word)) or word

    def _is_long_enough(self, word: str) -> bool:
        return len(word) > 1 or word in self.letters or _UNSPACED.fullmatch(word) is not None


def folded(text: str) -> str:
    """Return a text in Unicode's compatibility form, case-folded, without what is not seen, and with one hyphen."""
    if text.isascii():
        return text.lower()
    compatible = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible: str = _INVISIBLE.sub("", compatible)
    return visible.replace("\u2010", "-")


def chunks(text: str) -> list[str]:
    """Return the chunks of a text, case-folded: its words, where hyphens and underscores have not been split yet."""
    readable = folded(text)
    found: list[str] = (_ASCII_CHUNKS if readable.isascii() else _CHUNKS).findall(readable)
    return found


def _split(chunk: str) -> list[str]:
    """Return the words of a chunk, also those that are left out."""
    if chunk.isascii() and chunk.isalnum():
        return [chunk[:MAX_LENGTH]]
    if _UNSPACED.search(chunk):
        return _split_unspaced(chunk)
    parts = [part[:MAX_LENGTH] for part in _JOINTS.split(chunk) if part]
    if len(parts) > 1 and ("_" in chunk or _DIGIT.search(chunk) or any(len(part) == 1 for part in parts)):
        parts.append(chunk.strip("_")[:MAX_LENGTH])
    return parts


def _split_unspaced(chunk: str) -> list[str]:
    """Return the pairs of characters of the runs in scripts without spaces, and the words between them."""
    words, end = [], 0
    for run in _UNSPACED.finditer(chunk):
        words += _split(chunk[end : run.start()]) if run.start() > end else []
        characters = _GRAPHEMES.findall(run.group())
        words += [first + second for first, second in pairwise(characters)] or characters
        end = run.end()
    return words + (_split(chunk[end:]) if end < len(chunk) else [])
