# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import Alignment, EmbeddingError, Preparation, TokenDecoder, Vocabulary, alignment, tokens_kept
from keytok_haystack import decoder as decoder_module
from keytok_haystack.alignment_measures import alignments_among

READ_OFF = TokenDecoder(np.eye(12), Preparation(normalize=False))  # the embedding is the logits


def ranked(vocabulary: Vocabulary, *features: str) -> list[float]:
    """An embedding whose aligned tokens are these features, in this order."""
    logits = [0.001 * (12 - i) for i in range(12)]
    for rank, feature in enumerate(features):
        logits[vocabulary.features.index(feature)] = 10.0 - rank
    return logits


def area_under_the_curve(vocabulary: Vocabulary, logits: list[float], own: set[str]) -> float:
    """The share of pairs of an own and another feature in which the own one's logit is larger; ties count half."""
    values = dict(zip(vocabulary.features, logits, strict=True))
    pairs = [(values[a], values[b]) for a in own for b in values.keys() - own]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def test_hit_lar_and_gar_of_a_case_computed_by_hand(small_vocabulary: Vocabulary):
    texts = ["shock wave heat", "lift lift wing", "flow", "speed shock"]
    embeddings = [
        ranked(small_vocabulary, "wave", "lift", "shock", "heat"),
        ranked(small_vocabulary, "flow", "speed", "lift", "wing"),
        ranked(small_vocabulary, "flow"),
        ranked(small_vocabulary, "heat", "shock", "speed"),
    ]
    # top |T|: {wave, lift, shock} has 2 of 3; {flow, speed} 0 of 2; {flow} 1 of 1; {heat, shock} 1 of 2
    # union of T: shock wave heat lift wing flow speed; matched: wave shock flow
    local, everywhere = (2 / 3 + 0 + 1 + 1 / 2) / 4, 3 / 7
    # pairs of an own and another feature in which the own one is stronger: all but shock < lift and heat < lift of
    # 3 * 9; lift and wing each beat all but flow and speed of 10; flow all of 11; speed and shock all but heat of 10
    area = (25 / 27 + (8 + 8) / 20 + 1 + (9 + 9) / 20) / 4
    for k, hits in [(1, 2), (2, 3), (3, 4), (12, 4), (100, 4)]:
        expected = Alignment(hits / 4, pytest.approx(local), pytest.approx(everywhere), pytest.approx(area))
        assert alignment(READ_OFF, small_vocabulary, embeddings, texts, k=k) == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_measures_are_those_of_a_plain_loop_over_sets(
    small_vocabulary: Vocabulary, small_texts: list[str], seed: int, k: int
):
    embeddings = np.random.default_rng(seed).permuted(np.tile(np.arange(1.0, 13.0), (60, 1)), axis=1)
    hits, local, area, existing, matched = 0, 0.0, 0.0, set(), set()
    for text, logits in zip(small_texts, embeddings, strict=True):
        own = set(text.split())
        order = [small_vocabulary.features[i] for i in sorted(range(12), key=lambda i: -logits[i])]
        hits += bool(own & set(order[:k]))
        found = own & set(order[: len(own)])
        local += len(found) / len(own)
        area += area_under_the_curve(small_vocabulary, logits.tolist(), own)
        existing |= own
        matched |= found
    measured = alignment(READ_OFF, small_vocabulary, embeddings, iter(small_texts), k=k)
    assert measured.hit_at_k == pytest.approx(hits / 60)
    assert measured.local_alignment_rate == pytest.approx(local / 60)
    assert measured.global_alignment_rate == pytest.approx(len(matched) / len(existing))
    assert measured.literal_auc == pytest.approx(area / 60)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sets(st.integers(0, 11), min_size=1))
def test_among_some_features_the_measures_are_those_of_a_decoder_without_the_others(
    small_vocabulary: Vocabulary, small_texts: list[str], seed: int, k: int, subset: set[int]
):
    embeddings = np.random.default_rng(seed).integers(1, 9, size=(60, 12)).astype(float)  # with equal logits
    some = np.array(sorted(subset))
    everything, among = alignments_among(READ_OFF, small_vocabulary, embeddings, small_texts, [np.arange(12), some], k)
    assert everything == alignment(READ_OFF, small_vocabulary, embeddings, small_texts, k)
    decoder = TokenDecoder(np.eye(12)[some], Preparation(normalize=False))
    vocabulary = small_vocabulary.reordered(small_vocabulary.order_with_first(some))
    assert among == alignment(decoder, vocabulary, embeddings, small_texts, k)


def test_equal_logits_count_half_in_the_area(small_vocabulary: Vocabulary):
    logits = [2.0, 1.0, 1.0, 1.0, *[0.5] * 8]
    expected = area_under_the_curve(small_vocabulary, logits, {"wave", "heat"})
    measured = alignment(READ_OFF, small_vocabulary, [logits], ["wave heat"])
    assert measured.literal_auc == pytest.approx(expected) == pytest.approx((0.5 + 0.5 + 7 + 7 / 2) / 20)


def test_a_text_that_has_every_feature_has_no_area(small_vocabulary: Vocabulary):
    everything = " ".join(small_vocabulary.features)
    embeddings = [ranked(small_vocabulary, "lift"), ranked(small_vocabulary, "wing")]
    assert alignment(READ_OFF, small_vocabulary, embeddings[:1], [everything]).literal_auc == 1
    assert alignment(READ_OFF, small_vocabulary, embeddings, [everything, "wing"]).literal_auc == 1


def test_features_without_a_row_are_not_counted(small_vocabulary: Vocabulary, small_texts: list[str]):
    decoder = TokenDecoder(np.eye(5, 12), Preparation(normalize=False))
    known = small_vocabulary.features[:5]
    texts = [" ".join(word for word in text.split() if word in known) for text in small_texts]
    embeddings = np.random.default_rng(1).normal(size=(60, 12))
    measured = alignment(decoder, small_vocabulary, embeddings, small_texts, k=2)
    assert measured == alignment(decoder, small_vocabulary, embeddings, texts, k=2)
    with pytest.raises(ValueError, match="None of the texts has a feature"):
        alignment(decoder, small_vocabulary, embeddings[:1], [small_vocabulary.features[5]])


@given(st.integers(0, 2**32 - 1), st.integers(1, 14))
def test_the_tokens_kept_are_those_of_a_loop_over_sets(seed: int, k: int):
    random = np.random.default_rng(seed)
    matrices = random.integers(-5, 6, size=(2, 12, 3)).astype(float)
    embeddings = random.integers(-5, 6, size=(7, 3)) + 0.5
    before, after = (TokenDecoder(matrix, Preparation(normalize=False)) for matrix in matrices)
    kept = total = 0
    for embedding in embeddings:
        old, new = (
            {i for i in np.argsort(-(matrix @ embedding), kind="stable")[:k] if matrix[i] @ embedding > 0}
            for matrix in matrices
        )
        kept += len(old & new)
        total += len(old)
    assert tokens_kept(before, after, embeddings, k) == pytest.approx(kept / max(total, 1))
    assert tokens_kept(before, before, embeddings, k) == (1 if total else 0)


def test_only_decoders_of_the_same_features_are_compared():
    others = TokenDecoder(np.eye(5, 12), Preparation(normalize=False))
    with pytest.raises(ValueError, match="12 and 5"):
        tokens_kept(READ_OFF, others, np.ones((2, 12)))


def test_special_and_unknown_tokens_are_never_counted(small_vocabulary: Vocabulary):
    embeddings = [ranked(small_vocabulary, "wing", "lift"), ranked(small_vocabulary, "wing", "lift")]
    with_special = alignment(READ_OFF, small_vocabulary, embeddings, ["[UNK] lift [UNK]", "nonsense wing lift"], k=1)
    # {lift} against {wing}; {wing, lift} against {wing, lift}
    assert with_special == Alignment(0.5, 0.5, 1.0, pytest.approx((10 / 11 + 1) / 2))


def test_texts_without_features_are_left_out(small_vocabulary: Vocabulary):
    texts = ["", "lift", "nonsense [UNK]", "wing"]
    embeddings = [ranked(small_vocabulary, "lift")] * 4
    # wing is the seventh of the features, all of which but lift have ever smaller logits
    expected = Alignment(0.5, 0.5, 0.5, pytest.approx((1 + 4 / 11) / 2))
    assert alignment(READ_OFF, small_vocabulary, embeddings, texts, k=1) == expected


def test_chunks_make_no_difference(
    small_vocabulary: Vocabulary, small_texts: list[str], monkeypatch: pytest.MonkeyPatch
):
    embeddings = np.random.default_rng(1).normal(size=(60, 12))
    whole = alignment(READ_OFF, small_vocabulary, embeddings, small_texts)
    monkeypatch.setattr(decoder_module, "_CHUNK_ENTRIES", 12 * 7)
    assert alignment(READ_OFF, small_vocabulary, embeddings, small_texts) == whole


def test_texts_that_all_lack_features_are_refused(small_vocabulary: Vocabulary):
    with pytest.raises(ValueError, match="None of the texts has a feature"):
        alignment(READ_OFF, small_vocabulary, np.ones((2, 12)), ["", "nonsense"])


@pytest.mark.parametrize("n_texts", [0, 1, 3])
def test_another_number_of_texts_is_refused(small_vocabulary: Vocabulary, n_texts: int):
    with pytest.raises(ValueError, match=f"2 embeddings, but {n_texts} texts"):
        alignment(READ_OFF, small_vocabulary, np.ones((2, 12)), ["lift"] * n_texts)


def test_unusable_embeddings_are_refused(small_vocabulary: Vocabulary):
    with pytest.raises(EmbeddingError, match="Embedding 1 is the zero vector"):
        alignment(READ_OFF, small_vocabulary, [[1.0] * 12, [0.0] * 12], ["lift", "wing"])
