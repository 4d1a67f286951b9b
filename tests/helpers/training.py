# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Texts, collections and examples to train tiny models on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import transformers
from helpers.tiny_models import TEXTS

from keytok_haystack.encoders import head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.training.examples import Examples
from keytok_haystack.training.targets import data_driven

_WORDS = " ".join(TEXTS).replace(".", " ").split()


def sentences(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(_WORDS, size=random.integers(3, 9))) for _ in range(count)]


def examples_of(encoder: LanguageModelEncoder, embedder: str, texts: list[str]) -> Examples:
    """Targets of the literal tokens of each text."""
    vocabulary = head_of(embedder).vocabulary
    return Examples(
        encoder.inputs(texts), data_driven(vocabulary.literal_counts(texts).known, np.ones(len(vocabulary), bool))
    )


def write_collection(folder: Path, *, documents: int = 60) -> Path:
    """Write a collection in BEIR's layout whose queries are the beginnings of the documents relevant to them."""
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(_WORDS, size=12)) for _ in range(documents)]
    (folder / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": f"d{i}", "title": "", "text": text}) for i, text in enumerate(texts)]
    queries = [json.dumps({"_id": f"q{i}", "text": " ".join(texts[i].split()[:5])}) for i in range(10)]
    (folder / "corpus.jsonl").write_text("\n".join([*corpus, json.dumps({"_id": "empty", "text": " "})]))
    (folder / "queries.jsonl").write_text("\n".join(queries))
    judgements = [f"q{i}\td{i}\t1" for i in range(10)]
    (folder / "qrels" / "dev.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judgements]))
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files of a folder by their paths in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def counted_loads() -> Iterator[list[str]]:
    """Give a list that each model is added to when transformers loads it."""
    loaded, load = [], transformers.AutoModel.from_pretrained

    def counting(source: str, **options: object) -> object:
        loaded.append(str(source))
        return load(source, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.AutoModel, "from_pretrained", counting)
        yield loaded
