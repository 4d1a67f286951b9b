# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (letters of other alphabets are meant)
import copy
import json
import pickle
from collections import Counter

import numpy as np
import pytest
import Stemmer
from hypothesis import example, given
from hypothesis import strategies as st

from keytok_haystack import TokenRows, WordVocabulary
from keytok_haystack.evaluation import Collection
from keytok_haystack.vocabulary import Analysis
from keytok_haystack.vocabulary import words as words_module
from keytok_haystack.vocabulary.languages import STEMMED_LANGUAGES

CORPUS = [
    "Shock waves and a shock wave in the flow",
    "The waves of the X-15 at Mach 3.5",
    "Structures: the structure, structures of wings",
    "flow flowing flows, R and R",
]
LANGUAGES = sorted({*STEMMED_LANGUAGES.values(), "none"})


@pytest.fixture(scope="module")
def vocabulary() -> WordVocabulary:
    return WordVocabulary.from_texts(CORPUS, "english")


def named(vocabulary: WordVocabulary, found: TokenRows) -> list[dict[str, int]]:
    names = [*vocabulary.features, *found.unseen]
    assert found.rows.shape == (len(found), len(names))
    assert found.rows.dtype == np.float32
    assert found.rows.has_canonical_format
    bounds = zip(found.rows.indptr[:-1], found.rows.indptr[1:], strict=True)
    pairs = [(found.rows.indices[a:b].tolist(), found.rows.data[a:b].tolist()) for a, b in bounds]
    return [{names[i]: int(n) for i, n in zip(*pair, strict=True)} for pair in pairs]


def counts(vocabulary: WordVocabulary, text: str) -> dict[str, int]:
    return named(vocabulary, vocabulary.literal_counts([text]))[0]


# reading a corpus


def test_a_word_is_called_by_its_most_frequent_form_and_the_most_common_come_first(vocabulary: WordVocabulary):
    # in two texts: flow, shock no; of equal frequencies the stems are in the order of the alphabet
    assert vocabulary.features[:2] == ("flow", "waves")
    assert set(vocabulary.features) == {
        "flow", "waves", "shock", "15", "x-15", "mach", "3.5", "structures", "wings", "r",
    }  # fmt: skip
    assert vocabulary.language == "english"


def test_of_equally_frequent_forms_the_shortest_is_the_name_and_then_the_first_of_the_alphabet():
    assert WordVocabulary.from_texts(["waves wave", "flows flow flows flow"], "english").features == ("flow", "wave")
    assert WordVocabulary.from_texts(["flowed flowin flowing"], "english").features == ("flowed", "flowin")


def test_a_corpus_is_counted_as_python_counts_it(cranfield: Collection):
    """By hand: runs of letters and digits, stop words left out, Porter2 stems; compounds aside."""
    texts = [text for text in cranfield.documents.values() if not set(text) & set("-_.,'+#") and text.isascii()]
    texts = [" ".join(text.replace("-", " ").split()) for text in cranfield.documents.values()][:300]
    texts = ["".join(c if c.isalpha() else " " for c in text) for text in texts]
    found = WordVocabulary.from_texts(texts, "english")
    stem = Stemmer.Stemmer("english").stemWord
    stop_words = Analysis("english").stop_words
    words = [[word for word in text.lower().split() if len(word) > 1 and word not in stop_words] for text in texts]
    stems = [[stem(word) for word in text] for text in words]
    frequency = Counter(word for text in stems for word in set(text))
    own = [feature for feature in found.features if len(feature) > 1]
    assert {stem(feature): feature for feature in own}.keys() == frequency.keys()
    assert [frequency[stem(feature)] for feature in own] == sorted(frequency.values(), reverse=True)
    occurrences = Counter(word for text in words for word in text)
    forms: dict[str, list[str]] = {}
    for word in occurrences:
        forms.setdefault(stem(word), []).append(word)
    assert own == [min(forms[stem(f)], key=lambda w: (-occurrences[w], len(w), w)) for f in own]
    for text, row in zip(stems, named(found, found.literal_counts(texts)), strict=True):
        assert {stem(word): n for word, n in row.items() if len(word) > 1} == Counter(text)


def test_numbers_cannot_be_decoded_and_words_with_a_letter_can(vocabulary: WordVocabulary):
    decodable = dict(zip(vocabulary.features, vocabulary.decodable.tolist(), strict=True))
    assert {feature for feature, can in decodable.items() if not can} == {"15", "3.5"}
    assert decodable["x-15"]


def test_more_words_than_there_is_room_for_leave_out_those_in_the_fewest_texts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words_module, "MAX_WORDS", 3)
    monkeypatch.setattr(words_module, "MAX_DECODABLE", 2)
    texts = ["alpha beta gamma delta", "alpha beta gamma", "alpha beta", "alpha"]
    found = WordVocabulary.from_texts(texts, "none")
    assert found.features == ("alpha", "beta", "gamma")
    assert found.decodable.tolist() == [True, True, False]
    assert counts(found, texts[0]) == dict.fromkeys(["alpha", "beta", "gamma", "delta"], 1)
    assert found.literal_counts(texts).unseen == ("delta",)


@pytest.mark.parametrize(
    ("texts", "letters"),
    [
        (["We use R, and C here."], {"r", "c"}),
        (["a section c of part b, C and B and c and b"], set()),
        (["Vitamin C, vitamin C, plan c"], {"c"}),
        (["I say: A wing. A shock. I know a wing"], {"i", "a"}),
        (["John F. Kennedy and J. F. Kennedy's"], set()),
        (["don't, DON'T, X-ray, T-shirt, A-B"], set()),
        (["Σ and Δ, Ж"], {"σ", "δ", "ж"}),
        (["C++ and C# and C"], {"c"}),
    ],
)
def test_letters_alone_are_words_where_the_corpus_writes_them_as_capitals(texts: list[str], letters: set[str]):
    assert WordVocabulary.from_texts([*texts, "wing"], "none").analysis.letters == letters


@pytest.mark.parametrize("texts", [[], [""], ["", " \n"], ["., !", "🚀"], ["4 5 x"]], ids=str)
def test_texts_without_words_are_refused(texts: list[str]):
    with pytest.raises(ValueError, match="There is no word in the texts"):
        WordVocabulary.from_texts(texts)


def test_texts_of_stop_words_alone_are_refused():
    with pytest.raises(ValueError, match="There is no word in the texts"):
        WordVocabulary.from_texts(["the and of it", "was the"], "english")


@pytest.mark.parametrize("text", [None, 3, b"wing", ["wing"]])
def test_a_text_that_is_no_string_is_refused_with_its_position(vocabulary: WordVocabulary, text: object):
    for call in (WordVocabulary.from_texts, vocabulary.literal_counts):
        with pytest.raises(TypeError, match=f"text 1 is of type {type(text).__name__}"):
            call(["wing", text])


def test_one_string_and_bytes_instead_of_texts_are_refused(vocabulary: WordVocabulary):
    for call in (WordVocabulary.from_texts, vocabulary.literal_counts):
        with pytest.raises(TypeError, match="not one string"):
            call("shock waves")
        with pytest.raises(TypeError, match="text 0 is of type int"):
            call(b"shock waves")


def test_half_a_surrogate_pair_is_refused_with_its_position(vocabulary: WordVocabulary):
    text = json.loads(r'"wing \ud83d"')
    for call in (WordVocabulary.from_texts, vocabulary.literal_counts):
        with pytest.raises(ValueError, match="text 1 has half a surrogate pair"):
            call(["wing", text])


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="no stemmer for the language 'klingon'"):
        WordVocabulary.from_texts(CORPUS, "klingon")


def test_the_language_is_found_from_the_texts(cranfield: Collection):
    assert WordVocabulary.from_texts(list(cranfield.documents.values())[:100]).language == "english"


def test_two_features_of_one_word_are_refused():
    with pytest.raises(ValueError, match="forms of the same word"):
        WordVocabulary(["wave", "waves"], Analysis("english"))
    assert len(WordVocabulary(["wave", "waves"], Analysis("none"))) == 2


# words that have not been seen


def test_any_word_is_counted_under_its_name(vocabulary: WordVocabulary):
    assert counts(vocabulary, "A wave, waves, the turbopump and TURBOPUMPS at Mach 7.25!") == {
        "waves": 2, "turbopump": 2, "mach": 1, "7.25": 1,
    }  # fmt: skip
    assert vocabulary.literal_counts(["turbopump wave", "ramjets turbopump"]).unseen == ("turbopump", "ramjet")


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("turbopump", "turbopumps"),
        ("ramjet", "ramjets"),
        ("nozzle", "nozzles"),
        ("axle", "axles"),
        ("gearbox", "gearboxes"),
        ("winch", "winches"),
        ("bush", "bushes"),
        ("compress", "compresses"),
        ("canopy", "canopies"),
        ("quiz", "quizzes"),
        ("volcano", "volcanoes"),
        ("bus", "buses"),
    ],
)
def test_singular_and_plural_of_an_unseen_word_that_have_one_stem_have_one_name(
    vocabulary: WordVocabulary, singular: str, plural: str
):
    stem = Stemmer.Stemmer("english").stemWord
    assert (stem(singular) == stem(plural)) == (singular not in {"quiz", "bus"}), "the truth: what Porter2 joins"
    if stem(singular) == stem(plural):
        assert vocabulary.name(singular) == vocabulary.name(plural)
    assert vocabulary.name(singular) == singular, "it can be read"


@pytest.mark.parametrize("language", LANGUAGES)
@given(word=st.text("abcdeilnorstuyéüßçñаеилнорстыκασςείàêøæåžčşğı", min_size=1, max_size=9))
@example(word="ss")
@example(word="classs")
@example(word="sss")
def test_the_name_of_a_name_is_itself_in_every_language(language: str, word: str):
    vocabulary = WordVocabulary(["shock", "waves", "classes"], Analysis(language))
    for each in vocabulary.analysis.words(f"{word} {word}s"):
        name = vocabulary.name(each)
        assert vocabulary.name(name) == name
        # a name belongs to one normal form alone: that of its words
        assert vocabulary.analysis.normal_form(name) == vocabulary.analysis.normal_form(each)


words_of_texts = st.lists(
    st.sampled_from(
        ["wave", "waves", "flowing",
          "X-15", "x-15s", "turbopump", "Turbopumps", "ramjet", "7.25", "C++", "foo_bar", "R",
         "R.", "Straße", "東京タワー", "the", "don't", "हिन्दी", "gearboxes", "gearbox", "structur", "structure"]
    ),
    max_size=8,
).map(" ".join)  # fmt: skip


@given(st.lists(words_of_texts, max_size=8), st.integers(1, 4))
def test_batches_and_all_texts_at_once_have_the_same_words_by_name(
    vocabulary: WordVocabulary, texts: list[str], size: int
):
    at_once = named(vocabulary, vocabulary.literal_counts(texts))
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    assert [row for batch in batches for row in named(vocabulary, vocabulary.literal_counts(batch))] == at_once
    backwards = named(vocabulary, vocabulary.literal_counts(texts[::-1]))
    assert backwards[::-1] == at_once


@given(words_of_texts)
def test_counts_are_those_of_the_analysis_and_the_names(vocabulary: WordVocabulary, text: str):
    expected = Counter(vocabulary.name(word) for word in vocabulary.analysis.words(text))
    assert counts(vocabulary, text) == expected


@given(words_of_texts)
def test_no_unseen_word_has_the_name_of_a_feature(vocabulary: WordVocabulary, text: str):
    assert not {*vocabulary.literal_counts([text]).unseen} & {*vocabulary.features}


@pytest.mark.parametrize("language", ["english", "german", "french", "finnish", "turkish", "arabic", "none"])
@given(
    features=st.lists(st.text("aeinrst", min_size=2, max_size=5), min_size=1, max_size=6),
    text=st.lists(st.text("aeinrst", min_size=2, max_size=6), max_size=6).map(" ".join),
)
def test_an_unseen_word_never_takes_the_name_of_another_feature(language: str, features: list[str], text: str):
    analysis = Analysis(language, stop_words=frozenset())
    distinct = list({analysis.normal_form(feature): feature for feature in features}.values())
    vocabulary = WordVocabulary(distinct, analysis)
    forms = {analysis.normal_form(feature): feature for feature in distinct}
    found = vocabulary.literal_counts([text])
    assert not {*found.unseen} & {*distinct}
    expected = Counter(forms.get(analysis.normal_form(word), "unseen") for word in text.split())
    row = named(vocabulary, found)[0]
    seen = Counter({name: n for name, n in row.items() if name in distinct})
    seen["unseen"] = sum(n for name, n in row.items() if name not in distinct)
    assert +seen == expected


def test_the_memory_of_chunks_is_bounded_and_changes_nothing(vocabulary: WordVocabulary, monkeypatch):
    monkeypatch.setattr(words_module, "_CACHED_CHUNKS", 3)
    texts = [*CORPUS, "turbopumps and waves", *CORPUS]
    small, large = (vocabulary.reordered(np.arange(len(vocabulary))) for _ in range(2))
    expected = [counts(vocabulary, text) for text in texts]
    assert [counts(small, text) for text in texts] == expected
    assert len(small._columns_of_chunk) <= 3
    monkeypatch.undo()
    assert [counts(large, text) for text in texts] == expected
    assert len(large._columns_of_chunk) > 3


def test_a_reordered_vocabulary_counts_the_same_words(vocabulary: WordVocabulary):
    order = np.random.default_rng(0).permutation(len(vocabulary))
    reordered = vocabulary.reordered(order)
    assert reordered.features == tuple(vocabulary.features[i] for i in order)
    for text in [*CORPUS, "turbopumps", ""]:
        assert counts(reordered, text) == counts(vocabulary, text)


def again(vocabulary: WordVocabulary) -> WordVocabulary:
    settings = json.loads(json.dumps(vocabulary.settings))
    return WordVocabulary.from_settings(json.loads(json.dumps(vocabulary.features)), settings)


@pytest.mark.parametrize("made", [again, copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))],
    ids=["settings", "copy", "deepcopy", "pickle"],
)  # fmt: skip
def test_a_vocabulary_that_was_stored_or_copied_counts_the_same(vocabulary: WordVocabulary, made):
    other = made(vocabulary)
    assert other.features == vocabulary.features
    assert other.identity == vocabulary.identity
    texts = [*CORPUS, "the turbopumps of R", "東京タワー", ""]
    assert named(other, other.literal_counts(texts)) == named(vocabulary, vocabulary.literal_counts(texts))


def test_the_identity_changes_with_features_their_order_and_the_analysis(vocabulary: WordVocabulary):
    analysis = vocabulary.analysis
    others = [
        vocabulary.reordered(np.arange(len(vocabulary))[::-1]),
        WordVocabulary(vocabulary.features[:-1], analysis),
        WordVocabulary(vocabulary.features, Analysis("none", analysis.stop_words, analysis.letters)),
        WordVocabulary(vocabulary.features, Analysis("english", analysis.stop_words, frozenset("c"))),
        WordVocabulary(vocabulary.features, Analysis("english", analysis.stop_words | {"mach"}, analysis.letters)),
    ]
    assert len({vocabulary.identity, *(other.identity for other in others)}) == 6
    assert again(vocabulary).identity == vocabulary.identity


def test_no_texts_have_no_rows(vocabulary: WordVocabulary):
    found = vocabulary.literal_counts([])
    assert found.rows.shape == (0, len(vocabulary))
    assert found.unseen == ()


@pytest.mark.parametrize("text", ["", " \n", "., !", "the and of", "\u200b"])
def test_texts_without_words_have_empty_rows(vocabulary: WordVocabulary, text: str):
    found = vocabulary.literal_counts(["wave", text, "turbopump"])
    assert found.rows.sum(axis=1).tolist() == [1, 0, 1]


def test_indices_of_unseen_words_are_behind_the_features_and_always_the_same(vocabulary: WordVocabulary):
    size, words = len(vocabulary), [f"unseen{i}" for i in range(2000)]
    indices = [vocabulary.unseen_index(word) for word in words]
    assert indices == [vocabulary.reordered(np.arange(size)[::-1]).unseen_index(word) for word in words]
    assert min(indices) >= size
    assert max(indices) < 2**31 - 1
    assert len(set(indices)) >= 1999  # 2000^2 / 2^32 pairs share one
    assert np.quantile(indices, [0.25, 0.5, 0.75]) == pytest.approx(2**31 * np.array([0.25, 0.5, 0.75]), rel=0.1)


def test_keys_are_escaped(vocabulary: WordVocabulary):
    assert "3%2E5" in vocabulary.keys
    assert len({*vocabulary.keys}) == len(vocabulary)
