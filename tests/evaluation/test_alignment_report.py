# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from helpers.browser import chromium
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import (
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    Spectrum,
    TokenDecoder,
    TokenizerVocabulary,
    Vocabulary,
    alignment,
    calibrate,
    fit,
    from_language_model,
    from_masked_lm,
)
from keytok_haystack.encoders import embed
from keytok_haystack.evaluation import Collection, align, read_texts
from keytok_haystack.evaluation.alignment.analysis import analyze
from keytok_haystack.evaluation.alignment.components import backbone_change, leading_components
from keytok_haystack.evaluation.alignment.page import adjustment_table, html_page
from keytok_haystack.evaluation.alignment.pairs import explain_pair, similar_pairs
from keytok_haystack.evaluation.alignment.report import AlignmentReport
from keytok_haystack.evaluation.alignment.subject import Subject
from keytok_haystack.evaluation.alignment.token_classes import CLASSES, token_class
from keytok_haystack.evaluation.measures import mean_ndcg
from keytok_haystack.utils.resources import resource

Keytok = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]


def space(seed: int, n: int = 80, d: int = 8, shared: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, d) that share a direction, and the direction."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=d)
    direction /= np.linalg.norm(direction)
    noise = random.normal(size=(n, d)) * 0.8 ** np.arange(d)
    return (noise + shared * direction).astype(np.float32), direction


def random_head(vocabulary: Vocabulary, d: int = 8, seed: int = 1) -> KeyTokenModel:
    weight = np.random.default_rng(seed).normal(size=(len(vocabulary), d))
    return KeyTokenModel(vocabulary, TokenDecoder(weight, Preparation()), source="language-model")


@pytest.fixture(scope="module")
def collection(small_texts: list[str]) -> Collection:
    documents = {f"d{i}": text for i, text in enumerate(small_texts)}
    queries = {"q0": "wing lift", "q1": "shock wave", "q2": "heat"}
    return Collection("small", documents, queries, {f"q{i}": {f"d{i}": 1, f"d{i + 9}": 1} for i in range(3)})


@pytest.fixture(scope="module")
def subject(
    small_vocabulary: Vocabulary, small_texts: list[str], small_embeddings: np.ndarray, collection: Collection
) -> Subject:
    return Subject(
        embedder="random-projection",
        data="small",
        texts=small_texts,
        embeddings=small_embeddings,
        head=random_head(small_vocabulary),
        collection=collection,
        queries=small_embeddings[20:23],
        backbone=small_embeddings + np.float32(3) * Spectrum.from_embeddings(small_embeddings).pc1,
        instructed={
            "": (small_texts[:2], small_embeddings[:2]),
            "name the <field>": (small_texts[:2], small_embeddings[2:4]),
        },
    )


@pytest.fixture(scope="module")
def report(subject: Subject) -> AlignmentReport:
    return analyze(subject)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("␣the", "stop words"),
        ("The", "stop words"),
        ("⏎", "punctuation"),
        ("⏎⏎", "punctuation"),
        ("␣", "punctuation"),
        ('␣"', "punctuation"),
        ("...", "punctuation"),
        ("␣wing", "content"),
        ("##ing", "content"),
        ("3", "content"),
        ("翼", "content"),
        ("<|im_end|>", "special"),
        ("[CLS]", "special"),
        ("<0xe7ae>", "special"),
        ("<", "punctuation"),
    ],
)
def test_the_class_of_a_token(token: str, expected: str):
    assert token_class(token) == expected


@given(st.integers(0, 2**32 - 1))
def test_a_planted_first_component_is_found_and_decoded(small_vocabulary: Vocabulary, seed: int):
    embeddings, direction = space(seed, shared=20.0)
    head = random_head(small_vocabulary)
    first = leading_components(head, embeddings, Spectrum.from_embeddings(embeddings))[0]
    planted = dict(zip(head.vocabulary.features, head.decoder.weight @ direction, strict=True))
    assert first.explained_energy > 0.95
    assert first.constancy > 0.99
    # the planted direction is found up to noise, which may only swap tokens of nearly equal logits
    near = 0.1 * np.ptp(list(planted.values()))
    assert planted[first.tokens[0].token] > max(planted.values()) - near
    assert planted[first.opposite[0].token] < min(planted.values()) + near


@given(st.integers(0, 2**32 - 1))
def test_contributions_are_those_of_the_definition_and_add_up(small_vocabulary: Vocabulary, seed: int):
    embeddings, _ = space(seed)
    head = random_head(small_vocabulary)
    spectrum = Spectrum.from_embeddings(embeddings)
    found = leading_components(head, embeddings, spectrum)
    weight = head.decoder.weight.astype(np.float64)
    logits = embeddings @ weight.T  # there are fewer than 50 tokens, so all of them are the strongest
    classes = np.array([CLASSES.index(token_class(feature)) for feature in small_vocabulary.features])
    for component, u in zip(found, spectrum.components.astype(np.float64), strict=True):
        contributed = np.outer(embeddings @ u, weight @ u)
        assert component.contribution == pytest.approx(contributed.sum() / logits.sum(), rel=1e-3, abs=1e-3)
        raised = np.maximum(contributed, 0)
        for position, name in enumerate(CLASSES):
            expected = raised[:, classes == position].sum() / raised.sum()
            assert component.classes[name] == pytest.approx(expected, abs=1e-3)
        assert sum(component.classes.values()) == pytest.approx(1)
    assert sum(component.contribution for component in found) == pytest.approx(1, abs=1e-3)
    assert [component.number for component in found] == list(range(1, 9))


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_the_energy_of_a_change_adds_up_to_all_of_it(seed: int, scale: float):
    backbone, direction = space(seed)
    embeddings = backbone - 4 * np.outer(backbone @ direction, direction) + space(seed + 1, shared=0.0)[0]
    changed = backbone_change((scale * embeddings).astype(np.float32), backbone)
    assert min(changed.energy) >= -1e-6
    assert sum(changed.energy) == pytest.approx(1, abs=1e-4)
    # the definition, in the basis of the singular value decomposition
    before, after = (x / np.sqrt(np.square(x).sum(axis=1).mean()) for x in (backbone.astype(float), embeddings))
    right = np.linalg.svd(before, full_matrices=False)[2]
    difference = (after - before) @ right.T
    np.testing.assert_allclose(
        changed.energy, np.square(difference).sum(axis=0) / np.square(difference).sum(), atol=1e-3
    )
    np.testing.assert_allclose(np.abs(changed.variation), np.abs(difference.mean(axis=0)), atol=1e-3)


def test_a_change_along_the_first_component_alone_lies_there():
    backbone, _ = space(3)
    u1 = Spectrum.from_embeddings(backbone).pc1
    size = np.sqrt(np.square(backbone).sum(axis=1).mean())
    # what is taken from the first component makes up for the norm, so that nothing else has to be scaled
    moved = backbone - 2 * (backbone.mean(axis=0) @ u1) * u1
    changed = backbone_change(moved, backbone)
    assert changed.energy[0] == pytest.approx(1, abs=1e-5)
    assert changed.variation[0] == pytest.approx(-2 * (backbone.mean(axis=0) @ u1) / size, rel=1e-4)
    assert np.abs(changed.variation[1:]).max() < 1e-5


def test_changes_that_cannot_be_told_are_refused():
    embeddings, _ = space(4)
    with pytest.raises(ValueError, match="the backbone's own"):
        backbone_change(3 * embeddings, embeddings)
    with pytest.raises(ValueError, match="80 embeddings, but 79"):
        backbone_change(embeddings, embeddings[1:])
    with pytest.raises(EmbeddingError, match="7 dimensions, but 8"):
        backbone_change(embeddings, embeddings[:, 1:])


def test_a_pair_is_explained_by_the_products_of_its_weights(
    small_model: KeyTokenModel, small_texts: list[str], small_embeddings: np.ndarray
):
    rows = [2, 9]
    texts = small_texts[2], small_texts[9]
    pair = explain_pair(small_model, texts, small_embeddings[rows])
    a, b = small_model.encode_documents(small_embeddings[rows]).rows.toarray().astype(float)
    features = small_model.vocabulary.features
    products = {features[i]: a[i] * b[i] for i in range(12) if a[i] * b[i] > 0}
    total = sum(products.values())
    assert {token.token: token.weight for token in pair.shared} == pytest.approx(
        {token: value / total for token, value in products.items()}, rel=1e-4
    )
    assert sum(token.weight for token in pair.shared) == pytest.approx(1)
    assert {token.literal for token in pair.shared} == {True, False}, "the test can tell them apart"
    assert pair.only_a
    assert pair.only_b
    in_both = set(texts[0].split()) & set(texts[1].split())
    assert {token.token for token in pair.shared if token.literal} == in_both & products.keys()
    assert pair.literal_share == pytest.approx(sum(products.get(t, 0) for t in in_both) / total, rel=1e-4)
    assert {token.token for token in pair.only_a} == {features[i] for i in range(12) if a[i] > 0 and b[i] == 0}
    assert {token.token for token in pair.only_b} == {features[i] for i in range(12) if b[i] > 0 and a[i] == 0}
    x, y = small_embeddings[rows].astype(float)
    assert pair.cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), rel=1e-4)
    x, y = small_model.spectrum.adjust(small_embeddings[rows]).astype(float)
    assert pair.adjusted_cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-4)
    assert pair.key_token_cosine == pytest.approx(total / np.sqrt((a @ a) * (b @ b)), rel=1e-4)
    swapped = explain_pair(small_model, texts[::-1], small_embeddings[rows[::-1]])
    assert (swapped.shared, swapped.only_a, swapped.only_b) == (pair.shared, pair.only_b, pair.only_a)


def test_similar_pairs_are_those_that_were_planted_and_never_the_same_text():
    embeddings, _ = space(6, n=60, d=16)
    texts = [f"text {i}" for i in range(60)]
    for row, other in ((0, 17), (59, 8)):
        embeddings[other] = embeddings[row] + 0.01
    embeddings[5], texts[5] = embeddings[0], texts[0]
    found = {pair for pair, _ in similar_pairs(texts, embeddings)}
    assert {("text 0", "text 17"), ("text 59", "text 8")} <= found
    assert all(a != b for a, b in found)
    assert similar_pairs(["same"] * 60, embeddings) == []


def test_ndcg_of_scores(collection: Collection):
    scores = np.zeros((3, 60))
    scores[0, [0, 9]] = 2, 1
    scores[1, [4, 1]] = 2, 1
    first_of_two = 1 / np.log2(3) / (1 + 1 / np.log2(3))
    assert mean_ndcg(collection, scores) == pytest.approx((1 + first_of_two + 0) / 3)


def test_the_ways_to_adjust_are_measured_as_their_definitions_say(subject: Subject, report: AlignmentReport):
    spectrum = Spectrum.from_embeddings(subject.embeddings)
    ways = {
        "nothing": lambda x: x,
        "remove PC1": spectrum.adjust,
        "remove PC1 to PC3": lambda x: spectrum.adjust(x, n_components=3),
        "shift along PC1": lambda x: spectrum.adjust(x, method="shift"),
    }
    measured = {each.name: each for each in report.methods}
    assert list(measured) == [*ways, "remove PC1 and the mean", "EmbedFilter, half kept"]
    head = subject.head
    for name, adjust in ways.items():
        adjusted = adjust(subject.embeddings)
        own = alignment(head.decoder, head.vocabulary, adjusted, subject.texts)
        assert measured[name].alignment == own
        assert measured[name].content_alignment == own  # all words of these texts are content
        queries = adjust(subject.queries)
        cosines = Preparation()(queries) @ Preparation()(adjusted).T
        assert measured[name].dense == pytest.approx(mean_ndcg(subject.collection, cosines))
        assert sum(measured[name].classes.values()) == pytest.approx(1)
    assert len({each.dense for each in report.methods}) > 2, "the test can tell the ways apart"


def test_strengths_go_from_nothing_over_removal_to_more(subject: Subject, report: AlignmentReport):
    measured = {each.name: each for each in report.strengths}
    assert list(measured) == ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5"]
    by_method = {each.name: each for each in report.methods}
    assert measured["0"] == replace(by_method["nothing"], name="0")
    assert measured["1"] == replace(by_method["remove PC1"], name="1")
    spectrum = Spectrum.from_embeddings(subject.embeddings)
    own = alignment(
        subject.head.decoder, subject.head.vocabulary, spectrum.adjust(subject.embeddings, 0.75), subject.texts
    )
    assert measured["0.75"].alignment == own


def test_stop_words_are_left_out_of_the_alignment_of_content():
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    words = ["[UNK]", "the", "of", "wing", "lift", "drag"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]"])
    vocabulary = TokenizerVocabulary.from_tokenizer(tokenizer)
    head = KeyTokenModel(vocabulary, TokenDecoder(np.eye(5), Preparation()), source="language-model")
    # in each text stop words are the strongest; of content the own word is the strongest in the first two alone
    embeddings = np.array([[9, 8, 7, 2, 1], [9, 8, 1, 6, 2], [9, 8, 2, 5, 4]], dtype=np.float32)
    texts = ["the wing", "the lift", "the drag"]
    nothing = analyze(Subject("e", "d", texts, embeddings, head)).methods[0]
    assert nothing.alignment.local_alignment_rate == pytest.approx(1 / 2)
    assert nothing.alignment.global_alignment_rate == pytest.approx(1 / 4)
    assert nothing.content_alignment.local_alignment_rate == pytest.approx(2 / 3)
    assert nothing.content_alignment.global_alignment_rate == pytest.approx(2 / 3)
    assert nothing.dense is nothing.key_tokens is None


def test_the_length_of_embeddings_does_not_matter(tiny: Tiny, cranfield: Collection):
    """Some embedders scale theirs to 1, which an activation before the matrix would not forgive."""
    head = from_masked_lm(tiny("bert"))
    texts = list(cranfield.documents.values())[:20]
    embeddings = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32) + 1
    reports = [analyze(Subject("e", "d", texts, scale * embeddings, head)) for scale in (1, 0.01)]
    first, second = ([m.alignment for m in (*r.methods, *r.strengths)] for r in reports)
    assert first == second
    assert len(set(first)) > 3
    tokens = [[[t.token for t in c.tokens] for c in r.components] for r in reports]
    assert tokens[0] == tokens[1]


def test_samples_show_the_strongest_tokens_before_and_after(subject: Subject, report: AlignmentReport):
    spectrum = Spectrum.from_embeddings(subject.embeddings)
    features = np.array(subject.head.vocabulary.features)
    assert len(report.samples) == 6
    for sample in report.samples:
        row = subject.texts.index(sample.text)
        for shown, embedding in (
            (sample.before, subject.embeddings[row]),
            (sample.after, spectrum.adjust(subject.embeddings[row : row + 1])[0]),
        ):
            logits = subject.head.decoder.weight @ embedding
            order = [i for i in np.argsort(-logits) if logits[i] > 0]
            assert [token.token for token in shown] == features[order].tolist()
            assert [token.literal for token in shown] == [features[i] in sample.text.split() for i in order]


def test_the_report_is_json_and_says_what_it_is_about(subject: Subject, report: AlignmentReport):
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (data["texts"], data["queries"], data["dimension"], data["ids"]) == (60, 3, 8, False)
    assert [set(each["tokens"]) for each in data["instructions"]] == [{"", "name the <field>"}] * 2
    assert data["change"]["energy"] == pytest.approx(
        backbone_change(subject.embeddings, subject.backbone).energy, rel=1e-5
    )
    assert 1 <= len(data["pairs"]) <= 3


def test_a_head_of_another_dimension_is_refused(subject: Subject):
    with pytest.raises(EmbeddingError, match="head has 8 dimensions, but the embeddings 6"):
        analyze(replace(subject, embeddings=subject.embeddings[:, :6]))


class Structure(HTMLParser):
    """Checks that elements are closed in turn, and collects attributes and text."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_for_itself(report: AlignmentReport):
    dangerous = '<script>alert("1")</script> & more'
    html = html_page(replace(report, embedder=dangerous, samples=[replace(report.samples[0], text=dangerous * 20)]))
    structure = Structure()
    structure.feed(html)
    structure.close()
    assert structure.open == []
    assert html.count("<script") == 0
    text = "".join(structure.text)
    assert dangerous in text
    fetched = {"src", "href", "xlink:href", "data", "srcset", "action"}
    assert all(value.startswith("#") for name, value in structure.attributes if name in fetched)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 6
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert "currentColor" in drawing
    for measured in report.methods:
        assert measured.name in text
        assert f"{measured.alignment.global_alignment_rate:.3f}" in text
        assert f"{measured.dense:.3f}" in text
    assert "name the <field>" in text


def test_the_page_fits_on_a_phone(report: AlignmentReport):
    html = html_page(report)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert max(row.count("<th") + row.count("<td") for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL)) == 5
    assert "overflow-x" not in html
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        width, height = map(float, ET.fromstring(drawing).attrib["viewBox"].split()[2:])
        assert 1 < width / height < 2
        assert 400 / width * 9 > 8, "its smallest text, of 9 points, in pixels of a screen of 400"


def test_no_element_of_the_page_is_wider_than_a_phone(report: AlignmentReport, tmp_path: Path):
    page = tmp_path / "page.html"
    long = replace(report, embedder="organisation/" + "long-name" * 20, data="x" * 100)
    measured = """<style>html { width: 400px }</style><script>
        addEventListener("load", () => document.title = "beyond: " + [...document.querySelectorAll("body, body *")]
            .filter(each => each.getBoundingClientRect().right > 401 && !each.closest("svg")).map(each => each.tagName))
        </script>"""
    page.write_text(html_page(long) + measured, encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom")
    dom = subprocess.run([chromium(), *options, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "<title>beyond: </title>" in dom.stdout


def test_a_page_without_retrieval_change_and_instructions(subject: Subject):
    bare = replace(subject, collection=None, queries=None, backbone=None, instructed={})
    structure = Structure()
    structure.feed(html_page(analyze(bare)))
    text = "".join(structure.text)
    assert structure.open == []
    for absent in ("nDCG", "Instructions", "What training has changed"):
        assert absent not in text


def test_the_table_for_the_terminal(report: AlignmentReport):
    rows = adjustment_table(report)
    assert rows.row_count == len(report.methods)
    assert [column.header for column in rows.columns] == ["adjustment", "Hit@10", "LAR", "GAR", "AUC", "dense", "key"]


@pytest.fixture
def beir(tmp_path: Path, cranfield: Collection) -> Path:
    """A small part of Cranfield: 40 documents, and the queries that some of them answer."""
    documents = dict(list(cranfield.documents.items())[:40])
    judged = {q: {d: r for d, r in found.items() if d in documents} for q, found in cranfield.qrels.items()}
    judged = {query: found for query, found in judged.items() if found}
    (tmp_path / "qrels").mkdir()
    for name, texts in (("corpus", documents), ("queries", {query: cranfield.queries[query] for query in judged})):
        lines = [json.dumps({"_id": identifier, "text": text}) for identifier, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = [f"{query}\t{document}\t{r}" for query, found in judged.items() for document, r in found.items()]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def test_the_command_fits_a_decoder_to_an_embedder_without_a_head(keytok: Keytok, beir: Path, embedder: str):
    """As `keytok fit` does it: MiniLM's word embeddings, which no head is tied to, read little in its embeddings."""
    html, file = beir / "out" / "report.html", beir / "out" / "report.json"
    pair = ("the wing lifts", "an airfoil generates lift")
    code, out, err = keytok(
        "align", "--model", embedder, "--data", beir, "--pair", *pair, "--html", html, "--json", file
    )
    assert code == 0, err
    assert "remove PC1" in out
    assert "decoder: fitted" in out
    report = json.loads(file.read_text(encoding="utf-8"))
    texts = read_texts(beir)
    head = fit(embed(texts, embedder).embeddings, texts)
    assert report == json.loads(json.dumps(align(embedder, beir, head=head, pair=pair).to_dict()))
    assert (report["head"], report["ids"], report["texts"], report["dimension"]) == ("fitted", False, 40, 384)
    assert report["queries"] > 10
    assert report["methods"][0]["dense"] > 0.5
    assert report["methods"][0]["key_tokens"] > 0.5
    first, second, *_ = report["components"]
    assert (first["tokens"], first["opposite"], first["contribution"]) == ([], [], 0)
    assert second["tokens"]
    for sample in report["samples"]:
        assert sum(token["literal"] for token in sample["before"]) > len(sample["before"]) / 2
    assert [(p["a"], p["b"]) for p in report["pairs"]] == [pair]
    assert pair[1] in html.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints_of_minilm(keytok: Keytok, embedder: str):
    code, out, err = keytok("align", "--model", embedder, "--data", resource("examples/cranfield"))
    assert code == 0, err
    page = (Path(__file__).parents[2] / "docs" / "alignment-report.md").read_text(encoding="utf-8")

    def rows(text: str) -> dict[str, list[float]]:
        lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
        return {name: [float(value) for value in values] for name, *values in lines}

    printed, shown = rows(out), rows(page)
    assert printed.keys() == shown.keys()
    for name, values in shown.items():
        assert printed[name] == pytest.approx(values, abs=0.003)


def test_the_command_looks_into_a_language_model_and_its_backbone(keytok: Keytok, beir: Path, tiny: Tiny):
    model, file = tiny("llama"), beir / "report.json"
    options = ("--data", beir / "corpus.jsonl", "--max-texts", "12", "--json", file)
    code, _, err = keytok("align", "--model", f"prompt-eol:{model}", "--backbone", f"sgpt-nli:{model}", *options)
    assert code == 0, err
    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["head"], report["ids"], report["texts"], report["queries"]) == ("LM head", True, 12, 0)
    assert 0 < sum(report["change"]["energy"]) <= 1.0001
    spellings = set(TokenizerVocabulary.from_tokenizer(model, fold=False).features)
    assert {token["token"] for c in report["components"] for token in c["tokens"]} <= spellings


def test_the_command_decodes_an_encoder_by_its_masked_language_model_head(keytok: Keytok, beir: Path, tiny: Tiny):
    html, file = beir / "report.html", beir / "report.json"
    options = ("--data", beir / "corpus.jsonl", "--max-texts", "10", "--html", html, "--json", file)
    code, _, err = keytok("align", "--model", f"gte-base:{tiny('bert')}", *options)
    assert code == 0, err
    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["head"], report["ids"]) == ("MLM head", True)
    assert not any("EmbedFilter" in each["name"] for each in report["methods"]), "it is for linear heads"
    for component in report["components"]:  # whose shares are rounded
        assert sum(component["classes"].values()) == pytest.approx(1, abs=1e-5)


def test_the_command_compares_instructions(keytok: Keytok, beir: Path, tiny: Tiny):
    name, file = f"qwen3-embedding-0.6b:{tiny('qwen3')}", beir / "report.json"
    asked = ("--instruction", "Name the field", "--instruction", "Name the method")
    code, _, err = keytok("align", "--model", name, "--data", beir, *asked, "--max-texts", "10", "--json", file)
    assert code == 0, err
    instructed = json.loads(file.read_text(encoding="utf-8"))["instructions"]
    assert len(instructed) == 3
    for each in instructed:
        assert list(each["tokens"]) == ["", "Name the field", "Name the method"]
        shown = [tuple(token["weight"] for token in tokens) for tokens in each["tokens"].values()]
        assert len(set(shown)) == 3, "each instruction gives another embedding"


def test_the_command_decodes_by_another_head(keytok: Keytok, beir: Path, tiny: Tiny, cranfield_model_folder: Path):
    name, file = f"prompt-eol:{tiny('llama')}", beir / "report.json"
    options = ("--data", beir / "corpus.jsonl", "--max-texts", "10", "--json", file)
    code, _, err = keytok("align", "--model", name, "--head", tiny("mistral"), *options)
    assert code == 0, err
    theirs = from_language_model(tiny("mistral"), fold=False).decoder.weight
    assert json.loads(file.read_text(encoding="utf-8"))["dimension"] == theirs.shape[1]
    code, _, err = keytok("align", "--model", name, "--head", cranfield_model_folder, *options)
    assert code == 2
    assert "384" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--data", "corpus.jsonl", "--head", "nowhere"), "nowhere"),
        (("--data", ".", "--split", "train"), "train.tsv"),
        (("--data", "corpus.jsonl", "--instruction", "Name the field"), "instruction"),
    ],
)
def test_bad_input_is_told_in_one_line(
    keytok: Keytok, beir: Path, embedder: str, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(beir)
    code, _, err = keytok("align", "--model", embedder, *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_head_that_was_calibrated_is_compared_as_it_is(
    small_vocabulary: Vocabulary, small_texts: list[str], small_embeddings: np.ndarray
):
    """Its own removal and mean would make all ways to adjust embeddings alike."""
    head = random_head(small_vocabulary)
    calibrated = calibrate(head, small_embeddings, small_texts)
    reports = [analyze(Subject("e", "d", small_texts, small_embeddings, model)) for model in (head, calibrated)]
    assert reports[0].methods == reports[1].methods
    assert reports[0].strengths == reports[1].strengths
    assert reports[0].methods[0].alignment != reports[0].methods[1].alignment
