# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML file that needs nothing else, served with a search box, or written with the hits of one search."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def page(title: str, data: Mapping[str, Any] | None = None) -> str:
    """
    Return the page.

    :param title: Name of the collection.
    :param data: Result of `Workbench.search` to show; without, the page asks the server that it comes from.
    """
    # in a script element only "</" and "<!--" mean something
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    html = (_FOLDER / "page.html").read_text(encoding="utf-8")
    parts = {
        "STYLE": (_FOLDER / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": (_FOLDER / "page.js").read_text(encoding="utf-8"),
        "TITLE": escape(title),
        "DATA": content,
    }
    before, *rest = html.split("{{")
    for part in rest:
        name, after = part.split("}}", 1)
        before += parts[name] + after
    return before
