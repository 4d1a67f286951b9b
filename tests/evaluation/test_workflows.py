# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` and `align` from Python, with objects and with paths."""

import json
from pathlib import Path

import numpy as np
import pytest

from keytok_haystack import KeyTokenModel
from keytok_haystack.evaluation import AlignmentReport, Collection, EvaluationReport, align, evaluate


@pytest.fixture
def folder(tmp_path: Path, small_texts: list[str]) -> Path:
    """A collection in BEIR's layout."""
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", small_texts), ("queries", ["wing lift", "shock wave", "heat"])):
        lines = [json.dumps({"_id": str(i), "text": text}) for i, text in enumerate(texts)]
        (tmp_path / "beir" / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text("0\t0\t1\n1\t1\t1\n2\t2\t1", encoding="utf-8")
    return tmp_path / "beir"


def quality(report: EvaluationReport) -> dict[str, float]:
    return {name: measures["nDCG@10"] for name, measures in report.systems.items()}


def test_paths_and_objects_give_the_same_evaluation(
    folder: Path, tmp_path: Path, small_embeddings: np.ndarray, small_model: KeyTokenModel
):
    small_model.save(tmp_path / "model")
    arrays = {"embeddings": small_embeddings, "query_embeddings": small_embeddings[:3]}
    by_path = evaluate(folder, model=tmp_path / "model", **arrays)
    by_object = evaluate(Collection.load(folder, "test"), model=small_model, **arrays)
    assert quality(by_path) == quality(by_object)
    assert (by_path.data, by_path.split, by_path.fitted_on) == ("beir", "test", "given model")


def test_words_are_fitted_to_ready_made_embeddings(folder: Path, small_embeddings: np.ndarray):
    report = evaluate(folder, embeddings=small_embeddings, query_embeddings=small_embeddings[:3])
    assert (report.decoder, report.fitted_on, report.embedder) == ("fitted", "all documents", None)
    assert {entry["fitted_on"] for entry in report.out_of_sample} == {"a random half"}
    with pytest.raises(ValueError, match="59 embeddings, but 60 texts"):
        evaluate(folder, embeddings=small_embeddings[1:], query_embeddings=small_embeddings[:3])


def test_words_are_read_in_the_language_that_is_named(folder: Path, small_embeddings: np.ndarray):
    arrays = {"embeddings": small_embeddings, "query_embeddings": small_embeddings[:3]}
    with pytest.raises(ValueError, match="no stemmer for the language 'klingon': use 'none', or one of"):
        evaluate(folder, language="klingon", **arrays)
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text(encoding="utf-8").replace("wave ", "waves "), encoding="utf-8")
    english, none = (evaluate(folder, language=language, **arrays) for language in ("english", "none"))
    found = [report.systems["key_tokens"]["bytes_per_document"] for report in (english, none)]
    assert found[0] < found[1], "'wave' and 'waves' are one word in English"


@pytest.mark.slow
def test_an_embedder_is_looked_into_by_path_and_by_collection(folder: Path, embedder: str):
    by_path, by_object = (align(embedder, data) for data in (folder, Collection.load(folder, "test")))
    assert isinstance(by_path, AlignmentReport)
    assert by_path == by_object
    assert (by_path.texts, by_path.queries) == (60, 3)
