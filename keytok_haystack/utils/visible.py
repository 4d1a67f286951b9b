# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Control characters of foreign texts, made visible where people read them: a terminal would obey them."""

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_LATER = dict.fromkeys(range(0x80, 0xA0), "\ufffd")
_CONTROLS = _PICTURES | _LATER


def visible(text: str) -> str:
    """Return a text with pictures in place of control characters, but those that end lines and columns."""
    return text.translate(_CONTROLS)
