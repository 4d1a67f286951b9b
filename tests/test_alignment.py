# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import Alignment, EmbeddingError, Preparation, TokenDecoder, Vocabulary, alignment
from keytok_haystack import decoder as decoder_module

READ_OFF = TokenDecoder(np.eye(12), Preparation(normalize=False))  # the embedding is the logits


def ranked(vocabulary: Vocabulary, *features: str) -> list[float]:
    """An embedding whose aligned tokens are these features, in this order."""
    logits = [0.001 * (12 - i) for i in range(12)]
    for rank, feature in enumerate(features):
        logits[vocabulary.features.index(feature)] = 10.0 - rank
    return logits


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
    for k, hits in [(1, 2), (2, 3), (3, 4), (12, 4), (100, 4)]:
        expected = Alignment(hits / 4, pytest.approx(local), pytest.approx(everywhere))
        assert alignment(READ_OFF, small_vocabulary, embeddings, texts, k=k) == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_measures_are_those_of_a_plain_loop_over_sets(
    small_vocabulary: Vocabulary, small_texts: list[str], seed: int, k: int
):
    embeddings = np.random.default_rng(seed).permuted(np.tile(np.arange(1.0, 13.0), (60, 1)), axis=1)
    hits, local, existing, matched = 0, 0.0, set(), set()
    for text, logits in zip(small_texts, embeddings, strict=True):
        own = set(text.split())
        order = [small_vocabulary.features[i] for i in sorted(range(12), key=lambda i: -logits[i])]
        hits += bool(own & set(order[:k]))
        found = own & set(order[: len(own)])
        local += len(found) / len(own)
        existing |= own
        matched |= found
    measured = alignment(READ_OFF, small_vocabulary, embeddings, iter(small_texts), k=k)
    assert measured.hit_at_k == pytest.approx(hits / 60)
    assert measured.local_alignment_rate == pytest.approx(local / 60)
    assert measured.global_alignment_rate == pytest.approx(len(matched) / len(existing))


def test_special_and_unknown_tokens_are_never_counted(small_vocabulary: Vocabulary):
    embeddings = [ranked(small_vocabulary, "wing", "lift"), ranked(small_vocabulary, "wing", "lift")]
    with_special = alignment(READ_OFF, small_vocabulary, embeddings, ["[UNK] lift [UNK]", "nonsense wing lift"], k=1)
    # {lift} against {wing}; {wing, lift} against {wing, lift}
    assert with_special == Alignment(0.5, 0.5, 1.0)


def test_texts_without_features_are_left_out(small_vocabulary: Vocabulary):
    texts = ["", "lift", "nonsense [UNK]", "wing"]
    embeddings = [ranked(small_vocabulary, "lift")] * 4
    assert alignment(READ_OFF, small_vocabulary, embeddings, texts, k=1) == Alignment(0.5, 0.5, 0.5)


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
