# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import struct
from collections import Counter

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from keytok_haystack import InvertedIndex
from keytok_haystack.evaluation import Collection
from keytok_haystack.inverted_index import Bm25, Postings, contributions, standard_tokens
from keytok_haystack.inverted_index.bm25 import stored_lengths

KEYS = tuple("abcdefgh")
IDS = tuple(f"d{i}" for i in range(9))


def truncated(weight: float) -> float:
    """The value of a weight that Lucene has stored."""
    (bits,) = struct.unpack(">I", struct.pack(">f", weight))
    return struct.unpack(">f", struct.pack(">I", bits >> 15 << 15))[0]


def brute_force(documents: dict[str, dict[str, float]], query: dict[str, float]) -> list[tuple[str, float]]:
    """All documents that share a token with the query, best first, equal ones by id; sums in float64."""
    scores = {
        identifier: sum(weight * truncated(tokens[key]) for key, weight in query.items() if key in tokens)
        for identifier, tokens in documents.items()
    }
    return sorted(((i, s) for i, s in scores.items() if s > 0), key=lambda hit: (-hit[1], hit[0]))


# sums of 9-bit weights times powers of two are exact in float64, in whatever order they are taken
weights = st.floats(2.0**-9, 2.0**9, width=32)
document_tokens = st.dictionaries(st.sampled_from(KEYS), weights, max_size=5)
query_tokens = st.dictionaries(st.sampled_from([*KEYS, "unknown"]), st.sampled_from([0.25, 0.5, 1.0, 2.0]), max_size=5)
additions = st.tuples(st.just("add"), st.dictionaries(st.sampled_from(IDS), document_tokens, max_size=5))
removals = st.tuples(st.just("remove"), st.sets(st.sampled_from(IDS), max_size=5))


@settings(max_examples=300)
@given(st.lists(additions | removals, max_size=12), query_tokens, st.integers(0, 12), st.booleans())
def test_ranking_is_that_of_a_plain_sum_after_any_additions_replacements_and_removals(
    steps: list, query: dict[str, float], top_k: int, with_bm25: bool
):
    index, documents = InvertedIndex(with_bm25=with_bm25), {}
    for action, changed in steps:
        if action == "add":
            index.add(list(changed), list(changed.values()), ["lift"] * len(changed))
            documents |= changed
        else:
            known = [identifier for identifier in changed if identifier in documents]
            index.remove(known)
            documents = {identifier: tokens for identifier, tokens in documents.items() if identifier not in known}
        assert len(index) == len(documents)
    assert index.search(query, top_k) == brute_force(documents, query)[:top_k]
    some = {identifier: tokens for identifier, tokens in documents.items() if identifier in IDS[::2]}
    assert index.search(query, top_k, allowed_ids=[*IDS[::2], "unknown"]) == brute_force(some, query)[:top_k]


def random_documents(n: int, seed: int = 0) -> dict[str, dict[str, float]]:
    random = np.random.default_rng(seed)
    return {
        f"d{i:05}": {
            f"t{token}": float(weight)
            for token, weight in zip(
                random.choice(300, size=12, replace=False), random.lognormal(size=12).astype(np.float32), strict=True
            )
        }
        for i in range(n)
    }


@pytest.fixture(scope="module")
def many() -> dict[str, dict[str, float]]:
    """Three thousand documents, every tenth of which is a copy of the one before it."""
    documents = random_documents(3000)
    identifiers = list(documents)
    return documents | {identifiers[i]: documents[identifiers[i - 1]] for i in range(10, 3000, 10)}


@pytest.mark.parametrize("top_k", [1, 2, 10, 23, 24, 100, 2999, 3000, 10**6])
@pytest.mark.parametrize("batch", [1, 7, 999, 3000])
def test_ranking_of_many_documents_is_that_of_a_plain_sum_however_they_were_added(
    many: dict[str, dict[str, float]], top_k: int, batch: int
):
    index, identifiers = InvertedIndex(), list(many)
    for start in range(0, 3000 if batch > 1 else 300, batch):
        added = identifiers[start : start + batch]
        index.add(added, [many[identifier] for identifier in added], [""] * len(added))
    indexed = {identifier: many[identifier] for identifier in identifiers[: len(index)]}
    random = np.random.default_rng(top_k)
    for size in (1, 3, 40):
        query = {f"t{token}": 2.0 ** random.integers(-3, 2) for token in random.choice(300, size=size, replace=False)}
        assert index.search(query, top_k) == brute_force(indexed, query)[:top_k]


def test_rankings_of_arbitrary_weights_agree_with_float64(many: dict[str, dict[str, float]]):
    index = InvertedIndex()
    index.add(list(many), list(many.values()), [""] * len(many))
    random = np.random.default_rng(1)
    query = {f"t{token}": float(random.random()) for token in range(300)}
    found, expected = index.search(query, 50), brute_force(many, query)[:50]
    assert [identifier for identifier, _ in found] == [identifier for identifier, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=1e-12)


def test_equal_scores_are_ranked_by_id_wherever_the_cut_falls():
    index = InvertedIndex()
    identifiers = [f"d{i}" for i in np.random.default_rng(0).permutation(500)]
    index.add(identifiers, [{"lift": 0.5}] * 500, [""] * 500)
    for top_k in (1, 10, 499, 500, 501):
        assert index.search({"lift": 1.0}, top_k) == [(identifier, 0.5) for identifier in sorted(identifiers)[:top_k]]


def test_weights_are_truncated_as_lucene_does():
    index = InvertedIndex()
    index.add(["a", "b"], [{"lift": 1.0}, {"lift": 1.003}], ["", ""])
    # the next value above 1 that can be stored is 1 + 1/256, so the two weigh the same
    assert index.search({"lift": 0.3}, 2) == [("a", 0.3), ("b", 0.3)]
    assert index.search({"lift": 0.3}, 1) == [("a", 0.3)]
    index.add(["c"], [{"lift": 1.004}], [""])
    assert index.search({"lift": 1.0}, 1) == [("c", 1.00390625)]


@pytest.mark.parametrize("top_k", [0, -1])
def test_no_documents_can_be_asked_for(top_k: int):
    index = InvertedIndex()
    index.add(["a"], [{"lift": 1.0}], [""])
    assert index.search({"lift": 1.0}, top_k) == []


def test_an_empty_index_finds_nothing():
    for index in (InvertedIndex(), InvertedIndex(with_bm25=True)):
        index.add([], [], [])
        index.remove([])
        assert len(index) == 0
        assert index.search({"lift": 1.0}, 10) == []
    assert index.search({"lift": 1.0}, 10, text="lift", bm25_weight=0.1) == []


def test_documents_that_share_nothing_with_the_query_are_not_found():
    index = InvertedIndex(with_bm25=True)
    index.add(["a", "b", "c"], [{"lift": 1.0}, {"wing": 1.0}, {}], ["lift", "", "flow"])
    assert index.search({"lift": 1.0}, 10) == [("a", 1.0)]
    assert index.search({}, 10) == []
    assert index.search({"drag": 1.0}, 10, text="unknown", bm25_weight=0.1) == []
    assert [identifier for identifier, _ in index.search({"wing": 1.0}, 10, text="flow", bm25_weight=0.1)] == ["b", "c"]


def test_searching_among_no_documents_finds_none():
    index = InvertedIndex()
    index.add(["a"], [{"lift": 1.0}], [""])
    assert index.search({"lift": 1.0}, 10, allowed_ids=[]) == []
    assert index.search({"lift": 1.0}, 10, allowed_ids=["b"]) == []


def test_a_replaced_document_is_found_by_its_new_tokens_only():
    index = InvertedIndex()
    index.add(["a", "b"], [{"lift": 1.0}, {"lift": 0.5}], ["", ""])
    index.add(["a"], [{"wing": 1.0}], [""])
    assert len(index) == 2
    assert index.search({"lift": 1.0}, 10) == [("b", 0.5)]
    assert index.search({"wing": 1.0}, 10) == [("a", 1.0)]


BAD_WEIGHTS = {"zero": 0.0, "negative": -1.0, "nan": float("nan"), "infinite": float("inf"), "subnormal": 1e-40}


@pytest.mark.parametrize("weight", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_a_document_with_a_weight_that_engines_refuse_is_named_and_nothing_is_added(weight: float):
    index = InvertedIndex(with_bm25=True)
    index.add(["a", "b"], [{"lift": 1.0}, {"lift": 0.5}], ["lift", "lift wing"])
    before = index.search({"lift": 1.0, "drag": 1.0}, 10, text="wing lift", bm25_weight=0.1)
    with pytest.raises(ValueError, match="Document 'bad' cannot be indexed"):
        index.add(["c", "bad", "a"], [{"lift": 2.0}, {"drag": 1.0, "lift": weight}, {"drag": 1.0}], ["lift"] * 3)
    assert len(index) == 2
    assert index.search({"lift": 1.0, "drag": 1.0}, 10, text="wing lift", bm25_weight=0.1) == before


@pytest.mark.parametrize("text", [None, 3])
def test_a_text_that_is_no_string_is_refused_and_nothing_is_added(text: object):
    index = InvertedIndex(with_bm25=True)
    index.add(["a", "b"], [{"lift": 1.0}, {"lift": 0.5}], ["lift", "lift wing"])
    before = index.search({"lift": 1.0}, 10, text="wing lift", bm25_weight=0.1)
    with pytest.raises(TypeError, match="must be strings"):
        index.add(["a", "c"], [{"wing": 1.0}, {"lift": 2.0}], ["lift", text])
    assert len(index) == 2
    assert index.search({"lift": 1.0}, 10, text="wing lift", bm25_weight=0.1) == before


@pytest.mark.parametrize(
    ("ids", "tokens", "texts"),
    [
        (["c", "d"], [{"lift": 1.0}], ["", ""]),
        (["c"], [{"lift": 1.0}, {"lift": 1.0}], [""]),
        (["c", "d"], [{"lift": 1.0}] * 2, [""]),
        (["c", "c"], [{"lift": 1.0}] * 2, ["", ""]),
    ],
    ids=["too few tokens", "too many tokens", "too few texts", "an id twice"],
)
def test_lists_that_do_not_match_are_refused_and_nothing_is_added(
    ids: list[str], tokens: list[dict[str, float]], texts: list[str]
):
    index = InvertedIndex(with_bm25=True)
    index.add(["a"], [{"lift": 0.5}], ["lift"])
    with pytest.raises(ValueError, match=r"(?i)\bids?\b|texts|tokens|twice"):
        index.add(ids, tokens, texts)
    assert len(index) == 1
    assert index.search({"lift": 1.0}, 10) == [("a", 0.5)]


@pytest.mark.parametrize("ids", [["a", "unknown"], ["unknown", "a"], ["a", "a"]])
def test_removing_an_unknown_document_is_refused_and_nothing_is_removed(ids: list[str]):
    index = InvertedIndex()
    index.add(["a", "b", "c"], [{"lift": 1.0}, {"lift": 0.5}, {"lift": 0.25}], [""] * 3)
    with pytest.raises(KeyError):
        index.remove(ids)
    assert len(index) == 3
    assert index.search({"lift": 1.0}, 10) == [("a", 1.0), ("b", 0.5), ("c", 0.25)]
    index.add(["a"], [{"lift": 2.0}], [""])
    assert index.search({"lift": 1.0}, 10) == [("a", 2.0), ("b", 0.5), ("c", 0.25)]


def test_space_of_removed_documents_is_given_back():
    index, documents = InvertedIndex(), random_documents(200)
    index.add(list(documents), list(documents.values()), [""] * 200)
    full = index._postings.nbytes
    for identifier in list(documents)[:190]:
        index.remove([identifier])
    assert index._postings.nbytes < full / 4


@given(document_tokens, query_tokens)
def test_contributions_are_the_products_strongest_first_and_sum_to_the_score(
    document: dict[str, float], query: dict[str, float]
):
    parts = contributions(query, document)
    assert {key for key, *_ in parts} == set(query) & set(document)
    for key, query_weight, document_weight, contribution in parts:
        assert query_weight == query[key]
        assert document_weight == truncated(document[key])
        assert contribution == query_weight * document_weight
    assert parts == sorted(parts, key=lambda part: (-part[3], part[0]))
    index = InvertedIndex()
    index.add(["a"], [document], [""])
    score = sum(contribution for *_, contribution in parts)
    assert index.search(query, 1) == ([("a", pytest.approx(score, rel=1e-14))] if parts else [])


def test_scores_equal_the_sum_of_contributions(many: dict[str, dict[str, float]]):
    index = InvertedIndex()
    index.add(list(many), list(many.values()), [""] * len(many))
    random = np.random.default_rng(2)
    query = {f"t{token}": float(random.random()) for token in range(0, 300, 3)}
    for identifier, score in index.search(query, 100):
        assert sum(part[3] for part in contributions(query, many[identifier])) == pytest.approx(score, rel=1e-14)


def lucene_bm25(texts: list[str], query: str) -> list[float]:
    """BM25Similarity of Lucene 8 and later, k1 = 1.2 and b = 0.75, of documents shorter than it rounds."""
    documents = [Counter(text.replace("%", "").split()) for text in texts]
    assert all(sum(document.values()) <= 24 for document in documents)
    n = sum(bool(document) for document in documents)  # as in Lucene, documents without a term of the field count not
    average = sum(sum(document.values()) for document in documents) / n
    scores = []
    for document in documents:
        score = 0.0
        for term in query.replace("%", "").split():
            df = sum(term in other for other in documents)
            idf = np.log(1 + (n - df + 0.5) / (df + 0.5))
            norm = 1.2 * (1 - 0.75 + 0.75 * sum(document.values()) / average)
            score += idf * document[term] / (document[term] + norm)
        scores.append(score)
    return scores


QUERIES = ["lift", "shock wave 3.5", "lift lift wing", "100% heat transfer flow speed layer", ""]


@pytest.mark.parametrize("query", QUERIES)
def test_bm25_is_lucenes_formula(small_texts: list[str], query: str):
    bm25 = Bm25()
    bm25.add(small_texts[:20])
    bm25.add(["lift", *small_texts[20:]])
    texts = [*small_texts[:20], "lift", *small_texts[20:]]
    np.testing.assert_allclose(bm25.score(query), lucene_bm25(texts, query), rtol=1e-5)


@pytest.mark.parametrize("query", [query for query in QUERIES if query])
def test_bm25_is_that_of_bm25s(small_texts: list[str], query: str):
    bm25 = Bm25()
    bm25.add(small_texts)
    reference = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    reference.index([text.split() for text in small_texts], show_progress=False)
    distinct = list(dict.fromkeys(query.split()))
    np.testing.assert_allclose(bm25.score(" ".join(distinct)), reference.get_scores(distinct), rtol=1e-5)


def int_to_byte(length: int) -> int:
    """`SmallFloat.intToByte4` of Lucene, as it is written there."""
    if length < 24:
        return length
    digits = (length - 24).bit_length()
    if digits < 4:
        return 24 + length - 24
    shift = digits - 4
    return 24 + (((length - 24) >> shift & 0x07) | (shift + 1) << 3)


def byte_to_int(stored: int) -> int:
    """`SmallFloat.byte4ToInt` of Lucene."""
    if stored < 24:
        return stored
    bits, shift = stored - 24 & 0x07, (stored - 24 >> 3) - 1
    return 24 + (bits if shift < 0 else (bits | 0x08) << shift)


def test_lengths_are_rounded_as_lucene_stores_them():
    lengths = np.array([*range(3000), 10**4, 10**5 + 7, 2**31 - 1])
    expected = [byte_to_int(int_to_byte(length)) for length in lengths.tolist()]
    assert stored_lengths(lengths.astype(np.float64)).tolist() == expected
    assert len(set(expected)) < 120


def test_bm25_of_cranfield_is_lucenes_formula(cranfield: Collection):
    texts = list(cranfield.documents.values())
    bm25 = Bm25()
    bm25.add(texts)
    documents = [Counter(standard_tokens(text)) for text in texts]
    filled = [document for document in documents if document]
    assert len(filled) < len(documents)
    average = sum(map(Counter.total, filled)) / len(filled)
    for query in list(cranfield.queries.values())[:10]:
        expected = np.zeros(len(texts))
        for term in standard_tokens(query):
            df = sum(term in document for document in documents)
            idf = np.log(1 + (len(filled) - df + 0.5) / (df + 0.5))
            for i, document in enumerate(documents):
                norm = 1.2 * (0.25 + 0.75 * byte_to_int(int_to_byte(document.total())) / average)
                expected[i] += idf * document[term] / (document[term] + norm)
        np.testing.assert_allclose(bm25.score(query), expected, rtol=1e-5, atol=1e-6)


NEW_TEXTS = ["turbopump lift turbopump", "ramjet", "wing ramjet turbopump flow", "scramjet scramjet"]


@pytest.mark.parametrize(
    "query", ["turbopump", "ramjet lift scramjet", "turbopump turbopump wing", "afterburner", "3.5 heat"]
)
def test_bm25_counts_new_words_as_documents_come(small_texts: list[str], query: str):
    bm25, texts = Bm25(), []
    for batch in (small_texts[:9], NEW_TEXTS[:1], [], small_texts[9:12], NEW_TEXTS[1:], NEW_TEXTS[:1]):
        bm25.add(batch)
        texts += batch
        np.testing.assert_allclose(bm25.score(query), lucene_bm25(texts, query), rtol=1e-5, atol=1e-7)
    words = {word for text in texts for word in text.replace("%", "").split()}
    assert bm25.counts.shape == (len(texts), len(words))


def test_bm25_of_documents_in_batches_is_that_of_bm25s(small_texts: list[str]):
    texts = [f"{text} new{i % 7} other{i % 5}" for i, text in enumerate(small_texts)]
    bm25 = Bm25()
    bm25.add(texts[:30])
    bm25.add(texts[30:])
    reference = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    reference.index([text.replace("100%", "100").split() for text in texts], show_progress=False)
    for query in (["new3"], ["new0", "other4", "lift"], ["wing"]):
        np.testing.assert_allclose(bm25.score(" ".join(query)), reference.get_scores(query), rtol=1e-5)


@settings(max_examples=40)
@given(st.lists(st.sets(st.integers(0, 23), max_size=12), max_size=4))
def test_bm25_of_new_words_after_removals_is_that_of_what_is_left(removals: list[set[int]]):
    index = InvertedIndex(with_bm25=True)
    words = ("lift", "wing", "turbopump", "ramjet")
    present = {f"d{i:02}": f"{words[i % 4]} {words[i % 3]} new{i % 5}" for i in range(24)}
    index.add(list(present), [{}] * 24, list(present.values()))
    for number, chosen in enumerate(removals):
        gone = [identifier for i in sorted(chosen) if (identifier := f"d{i:02}") in present]
        index.remove(gone)
        present = {identifier: text for identifier, text in present.items() if identifier not in gone}
        later = {f"l{number}": f"later{number} turbopump new1"}
        index.add(list(later), [{}], list(later.values()))
        present |= later
    query = "turbopump new1 later0 wing nothing"
    found = dict(index.search({}, 100, text=query, bm25_weight=1.0))
    expected = lucene_bm25(list(present.values()), query) if present else []
    scores = {identifier: score for identifier, score in zip(present, expected, strict=True) if score > 0}
    assert found == pytest.approx(scores, rel=1e-5)


@settings(max_examples=40)
@given(st.lists(st.sets(st.integers(0, 59), max_size=40), max_size=4))
def test_bm25_after_removals_and_replacements_is_that_of_what_is_left(small_texts: list[str], removals: list[set[int]]):
    index = InvertedIndex(with_bm25=True)
    present = dict(zip([f"d{i:02}" for i in range(60)], small_texts, strict=True))
    index.add(list(present), [{}] * 60, list(present.values()))
    for chosen in removals:
        gone = [identifier for i in sorted(chosen) if (identifier := f"d{i:02}") in present]
        index.remove(gone)
        present = {identifier: text for identifier, text in present.items() if identifier not in gone}
        replaced = dict.fromkeys(list(present)[:2], "wing wing lift")
        index.add(list(replaced), [{}] * len(replaced), list(replaced.values()))
        present |= replaced
    found = dict(index.search({}, 100, text="lift wing 3.5", bm25_weight=1.0))
    expected = lucene_bm25(list(present.values()), "lift wing 3.5") if present else []
    scores = {identifier: score for identifier, score in zip(present, expected, strict=True) if score > 0}
    assert found == pytest.approx(scores, rel=1e-5)


def test_a_share_of_bm25_is_added_to_the_key_token_score(small_texts: list[str]):
    index = InvertedIndex(with_bm25=True)
    tokens = [{"a": 1.0 + i / 64} for i in range(60)]
    index.add([f"d{i}" for i in range(60)], tokens, small_texts)
    lexical = lucene_bm25(small_texts, "lift wing")
    expected = {f"d{i}": 0.5 * truncated(1 + i / 64) + 0.1 * lexical[i] for i in range(60)}
    found = index.search({"a": 0.5}, 60, text="lift wing", bm25_weight=0.1)
    assert dict(found) == pytest.approx(expected, rel=1e-6)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_a_share_of_bm25_without_texts_is_refused():
    index = InvertedIndex()
    index.add(["a"], [{"lift": 1.0}], ["lift"])
    with pytest.raises(ValueError, match="has no BM25"):
        index.search({"lift": 1.0}, 1, text="lift", bm25_weight=0.1)


def test_texts_without_words_do_not_disturb_bm25():
    bm25 = Bm25()
    bm25.add(["", "..."])
    assert bm25.score("lift").tolist() == [0, 0]
    bm25.add(["lift"])
    np.testing.assert_allclose(bm25.score("lift"), lucene_bm25(["", "", "lift"], "lift"), rtol=1e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_postings_are_a_matrix_product_however_they_were_added(sizes: list[int], seed: int):
    random = np.random.default_rng(seed)
    postings, dense = Postings(), np.zeros((0, 20), dtype=np.float32)
    for i, size in enumerate(sizes):
        known = 8 + min(i, 12)  # later documents have more tokens
        rows = np.zeros((size, 20), dtype=np.float32)
        rows[:, :known] = random.integers(0, 5, size=(size, known)) * (random.random((size, known)) < 0.3)
        postings.add(csr_array(rows[:, :known]))
        dense = np.concatenate([dense, rows])
        if i == len(sizes) // 2:
            kept = random.random(len(dense)) < 0.6
            postings.keep(kept)
            dense = dense[kept]
        assert len(postings) == len(dense)
    tokens = random.permutation(20)[:7]
    query = random.integers(1, 5, size=7).astype(np.float64)
    scores = postings.score(tokens, query)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, dense[:, tokens] @ query)
    np.testing.assert_array_equal(postings.document_frequency(tokens), (dense[:, tokens] > 0).sum(axis=0))


def test_adding_one_by_one_costs_few_segments():
    postings = Postings()
    for _ in range(1000):
        postings.add(csr_array(np.ones((1, 3), dtype=np.float32)))
    assert len(postings) == 1000
    assert len(postings._segments) <= 10
