# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Lists of stop words."""

from pathlib import Path

import bm25s.stopwords


def read_stop_words(source: str) -> frozenset[str]:
    """
    Read stop words.

    :param source: English name of a language that bm25s has stop words for, such as "german"; path of a file with one
        word per line; or "none".
    :returns: The words, case-folded.
    :raises ValueError: The source is none of these.
    """
    if source == "none":
        return frozenset()
    lists = {
        name.removeprefix("STOPWORDS_").lower(): words
        for name, words in vars(bm25s.stopwords).items()
        if name.startswith("STOPWORDS_")
    }
    lists["english"] = lists.pop("en_plus")  # the longer of two lists
    words = lists.get(source.lower())
    if words is None:
        if not Path(source).is_file():
            languages = ", ".join(sorted(lists))
            msg = f"There are no stop words for '{source}': name a file, 'none', or a language: {languages}."
            raise ValueError(msg)
        words = Path(source).read_text(encoding="utf-8").split()
    return frozenset(word.casefold() for word in words)
