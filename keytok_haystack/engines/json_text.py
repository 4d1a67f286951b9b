# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
JSON cut into the texts of its values, as they are spelled.

This is slower than msgspec but accepts half a surrogate pair, which msgspec refuses and engines store as it is.
"""

import json
from json.decoder import WHITESPACE  # type: ignore[attr-defined]  # public by name, though not in the stubs

_DECODER = json.JSONDecoder()


def members(text: str) -> dict[str, str]:
    """Cut an object into the texts of its values."""
    cut: dict[str, str] = {}
    at = _past_space(text, _past_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        cut[name], at = _value(text, _past_space(text, at) + 1)
        at = _past_space(text, at + 1) if text[at] == "," else at
    return cut


def elements(text: str) -> list[str]:
    """Cut an array into the texts of its values."""
    cut: list[str] = []
    at = _past_space(text, _past_space(text, 0) + 1)
    while text[at] != "]":
        value, at = _value(text, at)
        cut.append(value)
        at = _past_space(text, at + 1) if text[at] == "," else at
    return cut


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the text of the value at a position, and the position behind it."""
    start = _past_space(text, at)
    _, end = _DECODER.raw_decode(text, start)
    return text[start:end], _past_space(text, end)


def _past_space(text: str, at: int) -> int:
    end: int = WHITESPACE.match(text, at).end()
    return end
