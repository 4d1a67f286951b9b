# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The tokens of Lucene's standard analyzer, which engines use for a text field unless told otherwise."""

import regex

# what lies between two boundaries of words of UAX #29, if it is a word, a number or an emoji; scripts without spaces,
# in which there are no such boundaries, are not cut
_TOKENS = regex.compile(
    r"\p{Line_Break=SA}+|"
    r"\b(?=\p{WB=ExtendNumLet}*[\p{WB=ALetter}\p{WB=Hebrew_Letter}\p{WB=Katakana}\p{Hiragana}\p{Han}\p{WB=Numeric}"
    r"\p{Extended_Pictographic}]).+?\b",
    regex.WORD,
)


def standard_tokens(text: str) -> list[str]:
    """Return the tokens of Lucene's standard analyzer: words by UAX #29 in lower case, neither left out nor stemmed."""
    return [token.lower() for token in _TOKENS.findall(text)]
