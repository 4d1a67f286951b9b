# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A SPLADE beside the other systems; a random masked language model stands in for one."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import TEXTS
from rich.console import Console

from keytok_haystack import KeyTokenModel
from keytok_haystack.encoders.splade import SpladeEncoder
from keytok_haystack.evaluation import Collection, EvaluationReport, evaluate
from keytok_haystack.evaluation.measures import mean_ndcg
from keytok_haystack.evaluation.tables import ABSENT, LABELS, terminal_table

LONG = "lift and drag of a wing at low speed " * 30  # more than the model's window
DOCUMENTS = [*TEXTS, "", LONG, *(" ".join(TEXTS[i % 5].split()[: 1 + i % 7]) for i in range(13))]
QUERIES = ["heat transfer", "shock wave in front of a wing", "zebra"]


def weights(folder: Path, texts: list[str]) -> np.ndarray:
    """Texts one by one, as SPLADE-v2 defines it: the largest log(1 + ReLU(logit)) of any position."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    window = network.config.max_position_embeddings
    with torch.inference_mode():
        logits = [
            network(**tokenizer(text, return_tensors="pt", truncation=True, max_length=window)).logits[0]
            for text in texts
        ]
    return np.stack([torch.log1p(torch.relu(each)).amax(dim=0).numpy() for each in logits])


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


def test_texts_are_encoded_as_splade_defines_it(folder: Path):
    vectors = SpladeEncoder(folder).encode(DOCUMENTS, QUERIES, progress_bar=False)
    assert vectors.encoder == str(folder)
    assert vectors.seconds > 0
    for rows, texts in ((vectors.documents, DOCUMENTS), (vectors.queries, QUERIES)):
        expected = weights(folder, texts)
        assert rows.dtype == np.float32
        assert rows.nnz < expected.size
        np.testing.assert_allclose(rows.toarray(), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def collection() -> Collection:
    documents = {str(i): text for i, text in enumerate(DOCUMENTS)}
    return Collection("mine", documents, dict(zip("abc", QUERIES, strict=True)), {q: {"3": 1, "4": 2} for q in "abc"})


@pytest.fixture(scope="module")
def report(collection: Collection, folder: Path, small_model: KeyTokenModel) -> EvaluationReport:
    embeddings = np.random.default_rng(4).normal(size=(len(DOCUMENTS) + 3, small_model.dimension))
    arrays = {"embeddings": embeddings[:-3], "query_embeddings": embeddings[-3:]}
    return evaluate(collection, model=small_model, splade=folder, **arrays)


def test_it_is_measured_like_a_product_of_its_vectors(report: EvaluationReport, collection: Collection, folder: Path):
    documents, queries = weights(folder, DOCUMENTS), weights(folder, QUERIES)
    measured = report.systems["splade"]
    assert measured["nDCG@10"] == pytest.approx(mean_ndcg(collection, queries @ documents.T), abs=1e-6)
    assert measured["tokens_per_document"] == pytest.approx(np.count_nonzero(documents) / len(documents))
    read = [np.count_nonzero(documents[:, query > 0]) for query in queries]
    assert measured["postings_per_document"] == pytest.approx(np.mean(read) / len(documents))
    assert measured["p_values"].keys() == {"dense"}
    assert measured["bytes_per_document"] * len(documents) > 8 * np.count_nonzero(documents)


def test_the_report_names_it_and_its_time(report: EvaluationReport, folder: Path):
    assert report.to_dict()["splade"] == "/".join(folder.parts[-2:])
    assert report.seconds["splade"] > 0


def test_a_table_as_wide_as_a_terminal_has_all_columns(report: EvaluationReport):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(terminal_table(report))
    lines = captured.get().splitlines()
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]
    heading = " ".join(cell for row in rows[:6] if len(row) > 2 for cell in row)
    assert all(
        word in heading for word in ("nDCG@10", "of dense", "R@100", "tokens", "postings", "bytes", "/doc", "ms")
    )
    cells = {row[0]: row for row in rows if len(row) == 9}
    measured = report.systems["splade"]
    sizes = [f"{measured['tokens_per_document']:.0f}", f"{measured['postings_per_document']:.1f}"]
    assert cells[LABELS["splade"]][5:7] == sizes
    assert cells[LABELS["dense"]][5:7] == [ABSENT, ABSENT]
    assert "encoding by the SPLADE" in captured.get()


def test_without_one_there_is_none(collection: Collection, small_model: KeyTokenModel):
    embeddings = np.random.default_rng(4).normal(size=(len(DOCUMENTS), small_model.dimension))
    report = evaluate(collection, model=small_model, embeddings=embeddings, query_embeddings=embeddings[:3])
    assert "splade" not in report.systems
    assert report.splade is report.seconds["splade"] is None


def test_what_is_no_sparse_encoder_is_refused_in_one_line(
    embedder: str, tiny: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no model")
    for path in (tmp_path / "empty", tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ValueError, match=f"'{path}' is not a sparse encoder"):
            SpladeEncoder(path)
    for dense in (embedder, tiny("bare-bert")):
        with pytest.raises(ValueError, match=f"'{dense}' does not encode texts to weights of tokens: name a SPLADE"):
            SpladeEncoder(dense)
    # older transformers reports tensors that it leaves out, which is true
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warnings if record.name.startswith("sentence_transformers")]


def test_a_bad_splade_is_refused_before_texts_are_embedded(collection: Collection):
    with pytest.raises(ValueError, match="no/such"):
        evaluate(collection, embedder="/nothing", splade="/no/such")


def test_a_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"keytok-haystack\[sentence-transformers\]"):
        SpladeEncoder(folder)
