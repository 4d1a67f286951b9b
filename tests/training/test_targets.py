# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Targets, compared with ones that were computed by hand."""

from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from keytok_haystack import KeyTokenModel, Preparation, TokenDecoder, Vocabulary
from keytok_haystack.sparse_vectors.rows import rows_to_dicts
from keytok_haystack.training.errors import NoTargetsError
from keytok_haystack.training.examples import split
from keytok_haystack.training.settings import TargetRule
from keytok_haystack.training.targets import data_driven, informative, make_targets, mixture, model_derived

ALL = {"min_df": 1, "max_df": 1.0}
FEATURES = ("the", "wing", "lift", "shock", "drag")
COUNTS = csr_array(
    np.array(
        [
            [2, 1, 0, 0, 0],
            [1, 0, 4, 0, 0],
            [3, 1, 1, 0, 0],
            [1, 0, 0, 1, 0],
        ],
        dtype=np.float32,
    )
)
"""The first feature is in all four texts, the next two are in two of them, the fourth in one, the last in none."""


def kept(**rule: object) -> list[str]:
    found = informative(COUNTS, FEATURES, **(ALL | rule))
    return [feature for feature, keep in zip(FEATURES, found, strict=True) if keep]


def test_informative():
    assert kept() == ["the", "wing", "lift", "shock"]
    assert kept(min_df=2) == ["the", "wing", "lift"]
    assert kept(max_df=0.5) == ["wing", "lift", "shock"]
    assert kept(max_df=0.49) == ["shock"]
    assert kept(stop_words={"the", "shock", "wave"}) == ["wing", "lift"]
    assert kept(min_df=2, max_df=0.5, stop_words={"lift"}) == ["wing"]
    assert kept(min_df=2, max_df=0.1) == ["wing", "lift"]  # else the two filters would leave nothing
    assert kept(min_df=5) == []


def test_data_driven_by_hand():
    targets = data_driven(COUNTS, np.array([False, True, True, False, False])).toarray()
    idf = log(1 + (4 - 2 + 0.5) / (2 + 0.5))  # of both
    assert idf == pytest.approx(log(2))
    np.testing.assert_allclose(
        targets,
        [
            [0, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0.5, 0.5, 0, 0],
            [0, 0, 0, 0, 0],  # nothing is left
        ],
        rtol=1e-6,
    )
    the, two, one = (log(1 + (4 - df + 0.5) / (df + 0.5)) for df in (4, 2, 1))
    everything = data_driven(COUNTS, np.ones(5, bool)).toarray()
    np.testing.assert_allclose(everything[1, [0, 2]], np.array([the, 2 * two]) / (the + 2 * two), rtol=1e-6)
    np.testing.assert_allclose(
        everything[2, :3], np.array([sqrt(3) * the, two, two]) / (sqrt(3) * the + 2 * two), rtol=1e-6
    )
    np.testing.assert_allclose(everything[3, [0, 3]], np.array([the, one]) / (the + one), rtol=1e-6)


def test_model_derived_by_hand():
    logits = [
        [9.0, 3.0, 1.0, 2.0, 0.0],
        [9.0, 0.0, 0.0, 0.0, 0.5],
        [7.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 200.0, 199.0, 0.0, 198.0],  # exp(200) is no float32
    ]
    aligned = csr_array(np.array(logits, dtype=np.float32))
    targets = model_derived(aligned, np.array([False, True, True, True, True]), k=2).toarray()
    first, second = 1 / (1 + exp(-1)), exp(-1) / (1 + exp(-1))
    np.testing.assert_allclose(
        targets,
        [[0, first, 0, second, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, first, second, 0, 0]],
        rtol=1e-6,
    )


def test_mixture_by_hand():
    first = csr_array(np.array([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=np.float32))
    second = csr_array(np.array([[0, 0.25, 0.75], [0, 0, 0], [0, 0.4, 0.6], [0, 0, 0]], dtype=np.float32))
    expected = [[0.4, 0.45, 0.15], [1, 0, 0], [0, 0.4, 0.6], [0, 0, 0]]
    np.testing.assert_allclose(mixture(first, second, 0.8).toarray(), expected, rtol=1e-6)
    np.testing.assert_allclose(mixture(first, second).toarray()[0], [0.25, 0.375, 0.375], rtol=1e-6)


tables = st.tuples(st.integers(1, 8), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(0, 4).map(float), fill=st.nothing())
)


@given(tables, tables, st.data())
def test_targets_are_distributions_over_what_is_kept(table: np.ndarray, other: np.ndarray, data: st.DataObject):
    n, v = min(len(table), len(other)), min(table.shape[1], other.shape[1])
    counts, aligned = csr_array(table[:n, :v]), csr_array(other[:n, :v] * 30)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=v, max_size=v)))
    k = data.draw(st.integers(1, 4))
    own, models = data_driven(counts, allowed), model_derived(aligned, allowed, k)
    both = mixture(own, models, data.draw(st.floats(0.01, 0.99)))
    for targets, given_ in ((own, counts), (models, aligned), (both, None)):
        assert targets.has_canonical_format
        assert targets.has_sorted_indices
        assert (targets.data > 0).all()
        assert allowed[targets.indices].all()
        sums = np.asarray(targets.sum(axis=1)).ravel()
        filled = np.diff(targets.indptr) > 0
        np.testing.assert_allclose(sums, filled, rtol=1e-5)
        if given_ is not None:  # a text has a target just where something of it is left
            np.testing.assert_array_equal(filled, (given_.toarray()[:, allowed] > 0).any(axis=1))
    assert (np.diff(models.indptr) <= k).all()
    for row in range(n):
        present = [each for each in (own, models) if each[[row]].nnz]
        if len(present) == 1:
            np.testing.assert_allclose(both[[row]].toarray(), present[0][[row]].toarray(), rtol=1e-5)


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_texts_does_not_matter(table: np.ndarray, random: object):
    order = list(range(len(table)))
    random.shuffle(order)
    names = [f"f{i}" for i in range(table.shape[1])]
    made = []
    for rows in (table, table[order]):
        counts = csr_array(rows)
        allowed = informative(counts, names, min_df=1, max_df=0.5)
        made.append(mixture(data_driven(counts, allowed), model_derived(counts, allowed, 2)).toarray())
    np.testing.assert_allclose(made[0][order], made[1], rtol=1e-6)


# The targets of texts


@pytest.fixture(scope="module")
def head(small_vocabulary: Vocabulary) -> KeyTokenModel:
    """Reads only the first ten of the twelve words; the embedding's coordinates are their logits."""
    return KeyTokenModel(small_vocabulary, TokenDecoder(np.eye(10), Preparation()), source="language-model")


def refuse(texts: Sequence[str]) -> np.ndarray:
    msg = "Literal tokens need no embeddings."
    raise AssertionError(msg)


TEXTS = ["wing lift wing", "wing flow", "heat transfer", "heat flow shock", "100% 3.5"]


def test_make_targets_of_literal_tokens(head: KeyTokenModel):
    rule = TargetRule(kind="data", min_df=2, max_df=0.5, stop_words=frozenset({"flow"}))
    targets = make_targets(rule, head, TEXTS, refuse)
    assert targets.shape == (5, 10)  # what the head does not know is no target
    shown = rows_to_dicts(targets, head.vocabulary.features)
    assert shown == [{"wing": 1.0}, {"wing": 1.0}, {"heat": 1.0}, {"heat": 1.0}, {}]


def test_make_targets_of_what_the_model_says(head: KeyTokenModel):
    """Without the first principal component, which all texts share, and which the head reads as `shock`."""
    shock, wing, lift, flow = map(head.vocabulary.features.index, ("shock", "wing", "lift", "flow"))
    embeddings = np.zeros((5, 10), dtype=np.float32)
    embeddings[:, shock] = 50
    said = [(wing, 3.0), (wing, 3.0), (lift, 3.0), (lift, 3.0), (flow, 2.0)]
    for row, (feature, value) in enumerate(said):
        embeddings[row, feature] = value
    first = np.linalg.svd(embeddings.astype(float))[2][0]
    assert abs(first[shock]) > 0.99
    logits = embeddings - np.outer(embeddings @ first, first)
    logits[np.abs(logits) < 1e-4] = 0
    strong = np.where(logits > 0, logits, -np.inf)
    expected = np.exp(strong) / np.exp(strong).sum(axis=1, keepdims=True)
    rule = TargetRule(kind="model", min_df=1, max_df=1.0)
    targets = make_targets(rule, head, TEXTS, lambda texts: embeddings)
    np.testing.assert_allclose(targets.toarray(), expected, atol=1e-3)
    assert [next(iter(each)) for each in rows_to_dicts(targets, head.vocabulary.features)] == [
        "wing",
        "wing",
        "lift",
        "lift",
        "flow",
    ]
    both = make_targets(TargetRule("both", 0.7, 1, 1.0), head, TEXTS, lambda texts: embeddings)
    own = make_targets(TargetRule("data", 0.7, 1, 1.0), head, TEXTS, refuse)
    np.testing.assert_allclose(
        both.toarray()[:4], 0.7 * own.toarray()[:4] + 0.3 * targets.toarray()[:4], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(both.toarray()[4], targets.toarray()[4])  # the head does not know its words


def test_texts_shorter_than_the_filters(head: KeyTokenModel):
    rule = TargetRule(kind="data", min_df=3)
    with pytest.raises(NoTargetsError) as error:
        make_targets(rule, head, TEXTS, refuse)
    message = str(error.value)
    assert message.startswith("The filters leave hardly any target of 5 texts: a token has to be in at least 3 of them")
    assert "in at most 10% of them (max-df), and must not be a stop word" in message
    assert message.endswith("Use longer or more texts, or loosen the filters.")


@given(st.lists(st.booleans(), min_size=2, max_size=200), st.integers(0, 5))
def test_split(filled: list[bool], seed: int):
    filled[:2] = True, True
    targets = csr_array(np.array(filled, dtype=np.float32)[:, None])
    learnt, held_out = split(targets, seed)
    assert sorted([*learnt, *held_out]) == np.flatnonzero(filled).tolist()
    assert len(held_out) == max(1, round(sum(filled) / 20))
    assert len(learnt) > 0
    assert all(np.array_equal(*pair) for pair in zip(split(targets, seed), (learnt, held_out), strict=True))


def test_split_depends_on_the_seed_and_holds_out_256_at_most():
    targets = csr_array(np.ones((10_000, 1), dtype=np.float32))
    first, second = split(targets, 0)[1], split(targets, 1)[1]
    assert len(first) == len(second) == 256
    assert set(first) != set(second)
    assert np.ptp(first) > 9000


@pytest.mark.parametrize(("name", "value"), [("share", 0.0), ("share", 1.0), ("max_df", 0.0), ("max_df", 2.0)])
def test_rules_without_a_meaning(name: str, value: float):
    with pytest.raises(ValueError, match=f"^{name} must be above 0 and (at most|below) 1, but it is {value}"):
        TargetRule(**{name: value})
