# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A document's literal tokens join those that its embedding is aligned with."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from keytok_haystack import KeyTokenModel, Preparation, TokenDecoder, TokenRows, Vocabulary, Weighting, fit
from keytok_haystack import decoder as decoder_module
from keytok_haystack.encoders import Embedded
from keytok_haystack.evaluation import Collection

WORDS = ("shock", "wave", "boundary", "layer", "heat", "transfer", "wing", "lift", "flow", "speed", "3.5", "100%")
ROWS = 8  # "flow", "speed", "3.5" and "100%" have no row in the decoder
texts_of_words = st.lists(st.sampled_from([*WORDS, "unheard-of", "Shock"]), max_size=9).map(" ".join)
embeddings_of_integers = st.lists(st.integers(-4, 4), min_size=3, max_size=3).filter(any)
documents_of_integers = st.lists(st.tuples(embeddings_of_integers, texts_of_words), min_size=1, max_size=8)


def make_model(vocabulary: Vocabulary, **weighting: float) -> KeyTokenModel:
    """Logits are sums of integers, so that they are the same however documents are batched."""
    random = np.random.default_rng(6)
    decoder = TokenDecoder(random.integers(-3, 4, size=(ROWS, 3)), Preparation(normalize=False))
    idf = random.uniform(1, 5, size=13).astype(np.float32)
    settings = {"k_document": 5, "weight_scale": 2.0, "literal_scale": 1.5} | weighting
    return KeyTokenModel(vocabulary, decoder, Weighting(**settings), idf=idf)


@pytest.fixture(scope="module")
def model(small_vocabulary: Vocabulary) -> KeyTokenModel:
    return make_model(small_vocabulary)


def brute_force(model: KeyTokenModel, embedding: list[float], text: str, k: int | None = None) -> dict[str, float]:
    """One document, in Python's floats, for a tokenizer of lower-cased words and a decoder that prepares nothing."""
    setting, features = model.weighting, model.vocabulary.features
    logits = {
        feature: sum(float(a) * float(b) for a, b in zip(row, embedding, strict=True))
        for feature, row in zip(features, model.decoder.weight, strict=False)
    }
    counts = Counter(word for word in text.lower().split() if word in features)
    for word, tf in counts.items():
        idf = float(model.idf[features.index(word)])
        own = setting.literal_scale * idf * (tf / counts.total()) ** 0.5
        logits[word] = logits.get(word, 0.0) + setting.literal_share / (1 - setting.literal_share) * own
    level = max(0.0, *logits.values()) ** setting.normalization
    weights = {f: (v / level) ** setting.exponent / setting.weight_scale for f, v in logits.items() if v > 0}
    ranking = sorted(weights, key=lambda feature: (-round(weights[feature], 5), features.index(feature)))
    return {feature: weights[feature] for feature in ranking[: setting.k_document if k is None else k]}


def rows(model: KeyTokenModel, found: TokenRows) -> list[dict[str, float]]:
    assert found.unseen == ()
    weights = found.rows
    assert weights.shape[1] == len(model.vocabulary)
    assert weights.dtype == np.float32
    assert weights.has_canonical_format
    return [
        {
            model.vocabulary.features[i]: w
            for i, w in zip(weights.indices[a:b].tolist(), weights.data[a:b].tolist(), strict=True)
        }
        for a, b in zip(weights.indptr[:-1], weights.indptr[1:], strict=True)
    ]


def encode(model: KeyTokenModel, embedding: list[float], text: str | None, **arguments: int) -> dict[str, float]:
    (tokens,) = rows(model, model.encode_documents([embedding], None if text is None else [text], **arguments))
    return tokens


@pytest.mark.parametrize("share", [0.05, 0.35, 0.5, 0.95])
@pytest.mark.parametrize(("exponent", "normalization"), [(0.5, 0.25), (1.0, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("k", [1, 3, 12, 100])
def test_documents_are_what_a_loop_over_their_tokens_gives(
    small_vocabulary: Vocabulary,
    small_texts: list[str],
    share: float,
    exponent: float,
    normalization: float,
    k: int,
):
    settings = {"literal_share": share, "exponent": exponent, "normalization": normalization}
    model = make_model(small_vocabulary, k_document=k, **settings)
    random = np.random.default_rng(9)
    texts = [*small_texts[:25], "", "unheard-of words", "flow flow flow speed", "Shock unheard-of SHOCK 3.5"]
    embeddings = random.normal(size=(len(texts), 3)).astype(np.float32)
    found = rows(model, model.encode_documents(embeddings, texts))
    for tokens, embedding, text in zip(found, embeddings.tolist(), texts, strict=True):
        assert tokens == pytest.approx(brute_force(model, embedding, text), rel=1e-5, abs=1e-7), text


@given(documents_of_integers, st.integers(1, 14))
def test_any_documents_are_what_a_loop_over_their_tokens_gives(
    small_vocabulary: Vocabulary, documents: list[tuple[list[int], str]], k: int
):
    model = make_model(small_vocabulary)
    embeddings, texts = zip(*documents, strict=True)
    found = rows(model, model.encode_documents(embeddings, texts, top_k=k))
    for tokens, embedding, text in zip(found, embeddings, texts, strict=True):
        assert tokens == pytest.approx(brute_force(model, embedding, text, k), rel=1e-5)


def test_literal_tokens_join_by_hand(small_vocabulary: Vocabulary):
    decoder = TokenDecoder(np.array([[2], [1], [-1], [-9]]), Preparation(normalize=False))
    idf = np.array([1, 2, 8, 1, 4, 1, 1, 1, 1, 1, 1, 1, 1], dtype=np.float32)
    weighting = Weighting(weight_scale=2.0, literal_share=0.75, literal_scale=2.0)  # literal tokens: 3 * 2 * idf * ...
    model = KeyTokenModel(small_vocabulary, decoder, weighting, idf=idf)
    # boundary 1 of 4, heat 1 of 4, layer 2 of 4; the unknown word is no token
    logits = {
        "shock": 2,
        "wave": 1,
        "boundary": -1 + 6 * 8 * 0.5,
        "heat": 6 * 4 * 0.5,  # without a row in the decoder
    }  # layer has -9 + 6 * 0.71
    assert encode(model, [1.0], "Boundary unheard-of layer heat layer") == pytest.approx(
        {feature: (logit / 23**0.25) ** 0.5 / 2 for feature, logit in logits.items()}
    )


@given(documents_of_integers, st.integers(1, 14), st.integers(1, 8))
def test_documents_in_batches_are_what_they_are_at_once(
    small_vocabulary: Vocabulary, documents: list[tuple[list[int], str]], k: int, size: int
):
    model = make_model(small_vocabulary)
    embeddings, texts = zip(*documents, strict=True)
    at_once = model.encode_documents(embeddings, texts, top_k=k)
    batches = [
        row
        for start in range(0, len(documents), size)
        for row in rows(
            model, model.encode_documents(embeddings[start : start + size], texts[start : start + size], top_k=k)
        )
    ]
    assert rows(model, at_once) == batches


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 64, 999])
def test_a_document_is_the_same_alone_and_in_any_batch_on_any_number_of_threads(
    batch: int, threads: int, cranfield: Collection, cranfield_documents: Embedded, cranfield_model: KeyTokenModel
):
    """Bit by bit: an index that is filled twice is not written twice."""
    texts, embeddings = list(cranfield.documents.values()), cranfield_documents.embeddings
    expected = cranfield_model.document_tokens(cranfield_model.encode_documents(embeddings, texts))
    found = []
    with threadpool_limits(threads):
        for start in range(0, len(texts), batch):
            rows = slice(start, start + batch)
            found += cranfield_model.document_tokens(cranfield_model.encode_documents(embeddings[rows], texts[rows]))
    assert found == expected


@pytest.mark.parametrize("entries", [1, ROWS, 3 * ROWS + 1, 10**6])
def test_the_size_of_chunks_makes_no_difference(
    model: KeyTokenModel, small_texts: list[str], entries: int, monkeypatch: pytest.MonkeyPatch
):
    embeddings = np.random.default_rng(3).integers(1, 9, size=(60, 3))
    expected = rows(model, model.encode_documents(embeddings, small_texts))
    monkeypatch.setattr(decoder_module, "_CHUNK_ENTRIES", entries)
    assert rows(model, model.encode_documents(embeddings, iter(small_texts))) == expected


@pytest.mark.parametrize("text", ["", " \n", "unheard-of words", "[UNK]"])
def test_a_text_without_a_known_token_adds_nothing(model: KeyTokenModel, text: str):
    for embedding in ([1.0, 2.0, -1.0], [-1.0, 0.5, 3.0]):
        assert encode(model, embedding, text) == encode(model, embedding, None) != {}


@pytest.mark.parametrize(
    "without",
    [
        lambda model: model.with_weighting(literal_share=0.0),
        lambda model: model.with_weighting(literal_scale=0.0),
        lambda model: replace(model, idf=None),
    ],
    ids=["share", "scale", "idf"],
)
def test_without_a_share_a_scale_or_an_idf_texts_add_nothing(model, without, small_texts: list[str]):
    embeddings = np.random.default_rng(3).integers(-9, 9, size=(60, 3)) + 0.5
    alone = rows(model, model.encode_documents(embeddings))
    changed = without(model)
    assert rows(changed, changed.encode_documents(embeddings, small_texts)) == alone
    assert rows(model, model.encode_documents(embeddings, small_texts)) != alone


def test_the_number_of_texts_is_checked_where_they_add_nothing_too(model: KeyTokenModel):
    for given_model in (model, model.with_weighting(literal_share=0.0), replace(model, idf=None)):
        with pytest.raises(ValueError, match="1 embeddings, but 2 texts"):
            given_model.encode_documents([[1.0, 2.0, 3.0]], ["lift", "wing"])


def test_no_documents_give_no_rows(model: KeyTokenModel):
    assert rows(model, model.encode_documents(np.zeros((0, 3)), [])) == []


@pytest.mark.parametrize("top_k", [0, -1])
def test_documents_without_any_tokens_are_refused(model: KeyTokenModel, top_k: int):
    with pytest.raises(ValueError, match="At least 1"):
        model.encode_documents([[1.0, 2.0, 3.0]], ["lift"], top_k=top_k)


@pytest.mark.parametrize("text", [None, 3, b"lift"])
def test_a_text_that_is_no_string_is_refused(model: KeyTokenModel, text: object):
    with pytest.raises(TypeError, match="text 1 is of type"):
        model.encode_documents([[1.0, 2.0, 3.0]] * 2, ["lift", text])


def test_inputs_are_not_changed(model: KeyTokenModel, small_texts: list[str]):
    embeddings = np.random.default_rng(3).normal(size=(60, 3)).astype(np.float32)
    counts = model.vocabulary.literal_counts(small_texts).known
    before = embeddings.copy(), counts.toarray(), model.idf.copy()
    model.encode_documents(embeddings, small_texts, top_k=2)
    literals = model.literal_logits(counts)
    kept = literals.toarray()
    model.decoder.top_k(embeddings, 3, literals)
    model.scaled_to(embeddings, counts)
    for now, then in zip((embeddings, counts.toarray(), model.idf, literals.toarray()), (*before, kept), strict=True):
        np.testing.assert_array_equal(now, then)


def exact_model(vocabulary: Vocabulary, logits: list[float], **weighting: float) -> KeyTokenModel:
    """Literal tokens add 4 * sqrt(tf / length); all numbers are exact in float32."""
    decoder = TokenDecoder(np.array(logits)[:, None], Preparation(normalize=False))
    settings = {"exponent": 1.0, "normalization": 0.0, "literal_share": 0.5, "literal_scale": 2.0} | weighting
    return KeyTokenModel(vocabulary, decoder, Weighting(**settings), idf=np.full(13, 2, dtype=np.float32))


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, {"transfer"}),
        (2, {"transfer", "wave"}),
        (3, {"transfer", "wave", "layer"}),
        (4, {"transfer", "wave", "layer", "lift"}),
        (5, {"transfer", "wave", "layer", "lift", "flow"}),
        (6, {"transfer", "wave", "layer", "lift", "flow", "shock"}),
    ],
)
def test_of_equal_tokens_those_of_the_lowest_features_are_kept_whatever_they_come_from(
    small_vocabulary: Vocabulary, k: int, expected: set[str]
):
    model = exact_model(small_vocabulary, [1, 2, -2, 0, -1, 3])
    # of four words, each adds 2: layer is 0 + 2, lift and flow have no row, wave is aligned alone; boundary is at 0
    assert model.vocabulary.features[1:4] + model.vocabulary.features[7:9] == (
        "wave",
        "boundary",
        "layer",
        "lift",
        "flow",
    )
    assert set(encode(model, [1.0], "layer lift flow boundary", top_k=k)) == expected


@given(embeddings_of_integers, texts_of_words.filter(str.strip))
def test_at_a_high_share_a_text_keeps_all_of_its_tokens(small_vocabulary: Vocabulary, embedding: list[int], text: str):
    # the weakest adds 99 * 3 / 3, and two logits differ by 2 * 3 * 3 * 4 at most
    model = make_model(small_vocabulary, literal_share=0.99, literal_scale=3.0)
    own = {word for word in text.lower().split() if word in WORDS}
    assert own <= set(encode(model, embedding, text, top_k=max(len(own), 1)))


@given(embeddings_of_integers, st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
def test_at_a_high_share_the_most_frequent_of_the_rarest_tokens_is_the_strongest(
    small_vocabulary: Vocabulary, embedding: list[int], words: list[str]
):
    rarest = small_vocabulary.features[-1]
    model = make_model(small_vocabulary, literal_share=0.999)
    model = replace(model, idf=np.array([1.0] * 11 + [4.0, 1.0], dtype=np.float32))
    text = " ".join([*words, *[rarest] * (len(words) + 1)])
    assert list(encode(model, embedding, text, top_k=1)) == [rarest]


SHARES = st.lists(st.floats(0, 0.95), min_size=2, max_size=2, unique=True).map(sorted)


@given(embeddings_of_integers, texts_of_words, SHARES)
def test_more_share_removes_no_own_token_and_weakens_none(
    small_vocabulary: Vocabulary, embedding: list[int], text: str, shares: list[float]
):
    less, more = (
        encode(make_model(small_vocabulary, literal_share=s, k_document=12, normalization=0.0), embedding, text)
        for s in shares
    )
    own = set(text.lower().split()) & set(WORDS)
    assert less.keys() - own == more.keys() - own
    assert less.keys() <= more.keys()
    for feature in less:
        assert more[feature] >= less[feature] * (1 - 1e-6)
        assert feature in own or more[feature] == less[feature]


@given(embeddings_of_integers, texts_of_words, SHARES, st.integers(1, 12))
def test_more_share_never_costs_the_strongest_own_token_its_place(
    small_vocabulary: Vocabulary, embedding: list[int], text: str, shares: list[float], k: int
):
    counts = Counter(word for word in text.lower().split() if word in WORDS)
    assume(counts)
    less, more = (make_model(small_vocabulary, literal_share=share, k_document=k) for share in shares)
    idf = dict(zip(small_vocabulary.features, less.idf[:-1], strict=True))
    word = min(counts, key=lambda word: -idf[word] * counts[word] ** 0.5)
    assert word not in encode(less, embedding, text) or word in encode(more, embedding, text)


@given(embeddings_of_integers, texts_of_words, st.integers(1, 12))
def test_fewer_tokens_are_the_strongest_of_more(small_vocabulary: Vocabulary, embedding: list[int], text: str, k: int):
    model = make_model(small_vocabulary)
    every = encode(model, embedding, text, top_k=12)
    order = sorted(every, key=lambda feature: (-every[feature], model.vocabulary.features.index(feature)))
    assert encode(model, embedding, text, top_k=k) == {feature: every[feature] for feature in order[:k]}


@given(embeddings_of_integers, texts_of_words.filter(str.strip), st.integers(2, 5))
def test_a_text_said_over_and_over_says_the_same(
    small_vocabulary: Vocabulary, embedding: list[int], text: str, times: int
):
    model = make_model(small_vocabulary)
    repeated = encode(model, embedding, " ".join([text] * times), top_k=12)
    assert repeated == pytest.approx(encode(model, embedding, text, top_k=12), rel=1e-5)


@given(documents_of_integers, st.permutations(range(12)))
def test_the_order_of_features_without_a_row_changes_nothing_but_their_places(
    small_vocabulary: Vocabulary, documents: list[tuple[list[int], str]], order: list[int]
):
    embeddings, texts = zip(*documents, strict=True)
    model = make_model(small_vocabulary)
    others = [i for i in order if i >= ROWS]
    moved = np.array([*range(ROWS), *others])
    other = replace(model, vocabulary=small_vocabulary.reordered(moved), idf=model.idf[[*moved, -1]])
    assert rows(other, other.encode_documents(embeddings, texts, top_k=12)) == [
        pytest.approx(tokens) for tokens in rows(model, model.encode_documents(embeddings, texts, top_k=12))
    ]


# fitted scales


def strongest_by_hand(model: KeyTokenModel, embeddings: np.ndarray, texts: list[str]) -> tuple[float, float]:
    """The means over documents of the largest logit and of the largest `idf * sqrt(tf / length)`, 0 without any."""
    logits, literals = [], []
    idf = dict(zip(model.vocabulary.features, model.idf[:-1].astype(float), strict=True))
    for embedding, text in zip(embeddings.astype(float), texts, strict=True):
        logits.append(max(0.0, *(model.decoder.weight.astype(float) @ embedding)))
        counts = Counter(word for word in text.lower().split() if word in idf)
        literals.append(max((idf[word] * (tf / counts.total()) ** 0.5 for word, tf in counts.items()), default=0.0))
    return sum(logits) / len(logits), sum(literals) / len(literals)


@pytest.mark.parametrize("share", [0.0, 0.35, 0.8])
@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_scales_are_fitted_by_hand(small_vocabulary: Vocabulary, small_texts: list[str], share: float, exponent: float):
    model = make_model(small_vocabulary, literal_share=share, exponent=exponent, literal_scale=77.0, weight_scale=88.0)
    texts = [*small_texts[:50], *["", "unheard-of"] * 5]
    embeddings = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    scaled = model.scaled_to(embeddings, small_vocabulary.literal_counts(texts).known)
    logit, literal = strongest_by_hand(model, embeddings, texts)
    assert scaled.weighting.literal_scale == pytest.approx(logit / literal, rel=1e-5)
    found = [
        max(brute_force(scaled, embedding, text).values(), default=0.0)
        for embedding, text in zip(embeddings.tolist(), texts, strict=True)
    ]
    assert np.mean(found) == pytest.approx(1, rel=1e-5)
    assert scaled.encode_documents(embeddings, texts).rows.toarray().max(axis=1).mean() == pytest.approx(1, rel=1e-5)
    kept = {"literal_scale": 77.0, "weight_scale": 88.0}
    assert replace(scaled.weighting, **kept) == model.weighting


@pytest.mark.parametrize("reason", ["no counts", "no idf", "no known token"])
def test_where_literal_tokens_cannot_be_compared_they_stay_out(
    model: KeyTokenModel, small_texts: list[str], reason: str
):
    embeddings = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    counts = model.vocabulary.literal_counts(["unheard-of"] * 60 if reason == "no known token" else small_texts).known
    given_model = replace(model, idf=None) if reason == "no idf" else model
    scaled = given_model.scaled_to(embeddings, None if reason == "no counts" else counts)
    assert scaled.weighting.literal_scale == 0
    for texts in (None, small_texts):
        assert scaled.encode_documents(embeddings, texts).rows.toarray().max(axis=1).mean() == pytest.approx(
            1, rel=1e-5
        )


@pytest.mark.filterwarnings("error")
def test_scaling_to_no_documents_scales_nothing(model: KeyTokenModel):
    scaled = model.scaled_to(np.zeros((0, 3)), model.vocabulary.literal_counts([]).known).weighting
    assert (scaled.weight_scale, scaled.literal_scale) == (1.0, 0.0)


def test_scaling_twice_changes_nothing(model: KeyTokenModel, small_texts: list[str]):
    embeddings = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    counts = model.vocabulary.literal_counts(small_texts).known
    once = model.scaled_to(embeddings, counts)
    assert once.scaled_to(embeddings, counts).weighting == once.weighting


# what it is for


@pytest.fixture(scope="module")
def with_rare_words(
    small_vocabulary: Vocabulary, small_texts: list[str], small_embeddings: np.ndarray
) -> tuple[KeyTokenModel, list[str]]:
    """A model of texts among which only text 17 has the word "speed" and none has "3.5"."""
    texts = [" ".join(word for word in text.split() if word not in ("speed", "3.5")) for text in small_texts]
    texts[17] += " speed"
    return fit(small_embeddings, texts, small_vocabulary, min_df=2, preparation=Preparation()), texts


def test_a_token_of_one_document_alone_is_found_by_a_query_that_names_it(with_rare_words, small_embeddings):
    model, texts = with_rare_words
    assert "speed" in model.vocabulary.features[len(model.decoder) :], "below min_df"
    documents = model.encode_documents(small_embeddings, texts)
    column = model.vocabulary.features.index("speed")
    assert np.flatnonzero(documents.rows.toarray()[:, column]).tolist() == [17]
    for other in small_embeddings[[3, 30, 55]]:  # the query's embedding is that of another document
        alone = model.encode_queries([other], ["speed"], top_k=0)
        assert np.flatnonzero((documents.rows @ alone.rows.T).toarray().ravel()).tolist() == [17]
    without = model.encode_documents(small_embeddings)
    assert without.rows.toarray()[:, column].max() == 0


def test_a_token_that_was_never_seen_in_fitting_is_found_too(with_rare_words, small_embeddings):
    model, texts = with_rare_words
    assert "3.5" in model.vocabulary.features[len(model.decoder) :]
    later = model.encode_documents(small_embeddings[:3], [texts[0], f"{texts[1]} 3.5", texts[2]])
    scores = (later.rows @ model.encode_queries(small_embeddings[:1], ["3.5"], top_k=0).rows.T).toarray().ravel()
    assert np.flatnonzero(scores).tolist() == [1]
    features = model.vocabulary.features
    assert model.idf[features.index("3.5")] == model.idf[features.index("speed")] == model.idf[-1] == model.idf.max()


def test_fitting_to_a_reordered_vocabulary_gives_the_same_documents(
    small_vocabulary: Vocabulary, small_texts: list[str], small_embeddings: np.ndarray
):
    order = np.random.default_rng(2).permutation(12)
    one = fit(small_embeddings, small_texts, small_vocabulary, min_df=16)
    other = fit(small_embeddings, small_texts, small_vocabulary.reordered(order), min_df=16)
    found = rows(other, other.encode_documents(small_embeddings, small_texts, top_k=12))
    for tokens, expected in zip(
        found, rows(one, one.encode_documents(small_embeddings, small_texts, top_k=12)), strict=True
    ):
        for feature in WORDS:  # a logit of about 0 may be rounded to either side of it
            assert tokens.get(feature, 0) == pytest.approx(expected.get(feature, 0), rel=2e-3, abs=0.02)
