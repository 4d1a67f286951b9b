# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Languages: which one texts are in, its stop words, and its stemmer."""

from collections import Counter
from collections.abc import Sequence

from Stemmer import Stemmer

from keytok_haystack.utils.sampling import evenly_spaced_rows

STEMMED_LANGUAGES = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "eo": "esperanto",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
"""Languages with a Snowball stemmer, by the ISO 639-1 codes that language identification gives."""
NO_LANGUAGE = "none"

_SAMPLE, _CHARACTERS, _ENOUGH = 1000, 1000, 200
_MAJORITY = 0.75  # a corpus with more text in other languages than that is mixed


def detect_language(texts: Sequence[str]) -> str:
    """
    Return the language of most of the texts, by their n-grams of bytes (py3langid).

    At most 1,000 evenly spaced texts are read, 1,000 characters of each; short ones are read together with the next,
    since a language is not found in a word or two. Votes count by length.

    :returns: Name of a stemmer, such as "english"; "none" if texts are mixed, or of a language without one.
    """
    from py3langid import classify  # noqa: PLC0415  # takes most of a second, and only fitting needs it

    votes: Counter[str] = Counter()
    read = ""
    rows = evenly_spaced_rows(len(texts), _SAMPLE).tolist()
    for row in rows:
        read = f"{read} {texts[row][:_CHARACTERS]}".strip()
        if len(read) >= _ENOUGH or (row == rows[-1] and read):
            code, _ = classify(read)
            votes[STEMMED_LANGUAGES.get(code, NO_LANGUAGE)] += len(read)
            read = ""
    if not votes:
        return NO_LANGUAGE
    language, count = votes.most_common(1)[0]
    return language if count >= _MAJORITY * votes.total() else NO_LANGUAGE


def check_language(language: str) -> None:
    """
    Refuse an unknown language.

    :raises ValueError: It is neither the name of a stemmer nor "none".
    """
    if language != NO_LANGUAGE and language not in STEMMED_LANGUAGES.values():
        names = ", ".join(sorted(set(STEMMED_LANGUAGES.values())))
        msg = f"There is no stemmer for the language '{language}': use 'none', or one of {names}."
        raise ValueError(msg)


def stemmer_of(language: str) -> Stemmer | None:
    """Return the Snowball stemmer of a language; None for "none"."""
    return None if language == NO_LANGUAGE else Stemmer(language, 0)  # without its cache: there is one of whole words


def stop_words_of(language: str) -> frozenset[str]:
    """Return the stop words of a language, those of bm25s; empty for a language that has no list there."""
    from bm25s import stopwords  # noqa: PLC0415  # takes a moment, and only fitting needs it

    name = "EN_PLUS" if language == "english" else language.upper()  # the longer of two English lists
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))
