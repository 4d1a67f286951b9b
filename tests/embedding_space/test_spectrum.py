# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import EmbeddingError, Preparation, Spectrum, embed_filter
from keytok_haystack.embedding_space import in_batches
from keytok_haystack.utils.checks import check_embeddings

seeds = st.integers(0, 2**32 - 1)


def random_embeddings(seed: int = 0, n: int = 40, d: int = 6) -> np.ndarray:
    """Embeddings with a mean that is not zero and with another scale in each direction."""
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(d, d)))[0]
    return ((random.normal(size=(n, d)) * 0.7 ** np.arange(d) + random.normal(size=d)) @ rotation).astype(np.float32)


@given(seeds, st.integers(1, 40), st.integers(1, 10))
def test_components_and_energies_are_those_of_the_singular_value_decomposition(seed: int, n: int, d: int):
    embeddings = random_embeddings(seed, n, d)
    spectrum = Spectrum.from_embeddings(embeddings)
    _, singular, right = np.linalg.svd(embeddings.astype(np.float64), full_matrices=False)
    rank = len(singular)
    np.testing.assert_allclose(np.abs((spectrum.components[:rank] * right).sum(axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(spectrum.explained_energy[:rank], singular**2 / (singular**2).sum(), atol=1e-6)
    np.testing.assert_allclose(spectrum.explained_energy[rank:], 0, atol=1e-6)
    np.testing.assert_allclose(spectrum.components @ spectrum.components.T, np.eye(d), atol=1e-6)


@given(seeds)
def test_every_component_points_to_the_side_of_the_mean(seed: int):
    embeddings = random_embeddings(seed)
    spectrum = Spectrum.from_embeddings(embeddings)
    assert (spectrum.components @ embeddings.mean(axis=0) >= -1e-6).all()
    assert Spectrum.from_embeddings(-embeddings).pc1 == pytest.approx(-spectrum.pc1, abs=1e-5)


def test_pc1_is_that_of_embeddings_that_are_not_centred():
    embeddings = np.array([[10, 1], [10, -1], [10, 2], [10, -2]], dtype=np.float32)
    spectrum = Spectrum.from_embeddings(embeddings)
    np.testing.assert_allclose(spectrum.pc1, [1, 0], atol=1e-6)
    np.testing.assert_allclose(spectrum.explained_energy, [400 / 410, 10 / 410], rtol=1e-6)
    np.testing.assert_allclose(spectrum.mean, [10, 0])


@pytest.mark.parametrize(("asked", "kept"), [(1, 1), (3, 3), (6, 6), (100, 6)])
def test_as_many_components_are_kept_as_were_asked_for(asked: int, kept: int):
    spectrum = Spectrum.from_embeddings(random_embeddings(), n_components=asked)
    assert spectrum.components.shape == (kept, 6)
    assert spectrum.explained_energy.shape == (kept,)
    assert spectrum.dimension == 6
    np.testing.assert_allclose(spectrum.components, Spectrum.from_embeddings(random_embeddings()).components[:kept])


@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_stream_gives_the_same_spectrum_however_it_is_cut(cuts: list[int]):
    embeddings = random_embeddings()
    whole = Spectrum.from_embeddings(embeddings)
    streamed = Spectrum.from_embeddings(batch for batch in np.split(embeddings, sorted(cuts)))
    for name in ("mean", "components", "explained_energy"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(whole, name), atol=1e-6)


def test_an_array_larger_than_a_batch_is_read_whole():
    embeddings = random_embeddings(n=2500, d=3)
    np.testing.assert_array_equal(np.concatenate(list(in_batches(embeddings))), embeddings)
    np.testing.assert_allclose(Spectrum.from_embeddings(embeddings).mean, embeddings.mean(axis=0), atol=1e-5)


def test_a_list_of_lists_is_an_array():
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(embeddings.tolist())
    np.testing.assert_array_equal(spectrum.components, Spectrum.from_embeddings(embeddings).components)


@pytest.mark.parametrize(
    "nothing",
    [np.zeros((0, 4)), [], iter(()), [np.zeros((0, 4)), np.zeros((0, 4))]],
    ids=["no rows", "empty list", "empty stream", "stream of no rows"],
)
def test_a_spectrum_of_nothing_is_refused(nothing: object):
    with pytest.raises(EmbeddingError, match="no embeddings"):
        Spectrum.from_embeddings(nothing)


def test_a_stream_whose_dimension_changes_is_refused():
    with pytest.raises(EmbeddingError, match="4 dimensions, but 3"):
        Spectrum.from_embeddings([np.ones((2, 3)), np.ones((2, 4))])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
def test_adjusting_takes_a_share_of_pc1_out(strength: float):
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(random_embeddings(1))
    u1 = spectrum.pc1.astype(np.float64)
    expected = [h - strength * np.dot(h, u1) * u1 for h in embeddings.astype(np.float64)]
    adjusted = spectrum.adjust(embeddings, strength)
    assert adjusted.dtype == np.float32
    np.testing.assert_allclose(adjusted, expected, atol=1e-6)
    np.testing.assert_allclose(adjusted @ u1, (1 - strength) * (embeddings @ u1), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_adjusting_takes_a_share_of_the_first_components_out(n: int):
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(random_embeddings(1))
    before, after = (x @ spectrum.components.T for x in (embeddings, spectrum.adjust(embeddings, 0.75, n)))
    np.testing.assert_allclose(after[:, :n], 0.25 * before[:, :n], atol=1e-5)
    np.testing.assert_allclose(after[:, n:], before[:, n:], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_adjusting_twice_changes_nothing(n: int):
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(embeddings)
    once = spectrum.adjust(embeddings, n_components=n)
    np.testing.assert_allclose(spectrum.adjust(once, n_components=n), once, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
def test_shifting_adds_the_same_vector_to_all_and_scales_the_mean_coefficients(n: int, strength: float):
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(embeddings)
    shifted = spectrum.adjust(embeddings, strength, n, method="shift")
    assert shifted.dtype == np.float32
    moved = shifted - embeddings
    np.testing.assert_allclose(moved, np.tile(moved[:1], (len(moved), 1)), atol=1e-6)
    before, after = (x.mean(axis=0) @ spectrum.components.T for x in (embeddings, shifted))
    np.testing.assert_allclose(after[:n], (1 - strength) * before[:n], atol=1e-5)
    np.testing.assert_allclose(after[n:], before[n:], atol=1e-5)


@given(seeds, st.integers(1, 6))
def test_preparations_of_a_spectrum_do_what_adjusting_does(seed: int, n: int):
    embeddings = random_embeddings(seed)
    spectrum = Spectrum.from_embeddings(embeddings)
    for preparation, method in ((spectrum.removal(n), "remove"), (spectrum.shift(n), "shift")):
        adjusted = spectrum.adjust(embeddings, n_components=n, method=method)
        np.testing.assert_allclose(preparation.adjusted(embeddings), adjusted, atol=1e-6)


def test_a_preparation_knows_what_it_removes():
    spectrum = Spectrum.from_embeddings(random_embeddings())
    assert spectrum.removal(3).has_removed(spectrum.leading(2))
    assert spectrum.removal(2).has_removed(np.float32([[0.6, 0.8], [-0.8, 0.6]]) @ spectrum.leading(2))
    assert not spectrum.removal(1).has_removed(spectrum.leading(2))
    assert not spectrum.shift(2).has_removed(spectrum.leading(1))
    assert not Preparation().has_removed(spectrum.leading(1))


@pytest.mark.parametrize("n", [-1, 0, 4])
def test_components_that_are_not_there_are_refused(n: int):
    spectrum = Spectrum.from_embeddings(random_embeddings(), n_components=3)
    for ask in (spectrum.leading, spectrum.removal, spectrum.shift):
        with pytest.raises(ValueError, match=f"between 1 and 3, but it is {n}"):
            ask(n)
    for method in ("remove", "shift"):
        with pytest.raises(ValueError, match=f"between 1 and 3, but it is {n}"):
            spectrum.adjust(random_embeddings(), n_components=n, method=method)


def test_adjusting_does_not_change_its_input_and_takes_lists():
    embeddings = random_embeddings()
    before = embeddings.copy()
    spectrum = Spectrum.from_embeddings(embeddings)
    np.testing.assert_array_equal(spectrum.adjust(embeddings.tolist()), spectrum.adjust(embeddings))
    np.testing.assert_array_equal(embeddings, before)


def test_adjusting_embeddings_of_another_dimension_is_refused():
    with pytest.raises(EmbeddingError, match="7 dimensions, but 6"):
        Spectrum.from_embeddings(random_embeddings()).adjust(np.ones((1, 7)))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([1.0, 2.0, 3.0], r"shape \(n, d\).*\(3,\)"),
        (np.ones((2, 2, 3)), r"shape \(n, d\).*\(2, 2, 3\)"),
        (3.0, r"shape \(n, d\)"),
        ([], r"shape \(n, d\)"),
        (np.ones((2, 4)), "4 dimensions, but 3 are expected"),
        ([[1, 2, 3], [1, 2]], "vectors of one length"),
        ([[1, 2, "lift"]], "made of numbers"),
        ([[1, 2, None]], "made of numbers"),
        (None, r"shape \(n, d\)"),
        ([[1, 2, 3], [1, np.nan, 3]], "Embedding 1 contains NaN or infinity"),
        ([[1, 2, 3], [1, 2, 3], [np.inf, 2, 3]], "Embedding 2 contains NaN or infinity"),
        ([[-np.inf, np.inf, 3]], "Embedding 0 contains NaN or infinity"),
        ([[1, 2, 3], [0, 0, 0], [1, 2, 3]], "Embedding 1 is the zero vector"),
    ],
)
def test_unusable_embeddings_are_refused(embeddings: object, message: str):
    with pytest.raises(EmbeddingError, match=message):
        check_embeddings(embeddings, 3)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_an_embedding_that_is_infinite_in_float32_is_refused():
    with pytest.raises(EmbeddingError, match="Embedding 0 contains NaN or infinity"):
        check_embeddings([[1e300, 1.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, list])
def test_usable_embeddings_become_float32(dtype: type):
    embeddings = [[1, 2, 3], [4, 5, 6]] if dtype is list else np.array([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    checked = check_embeddings(embeddings, 3)
    assert checked.dtype == np.float32
    assert checked.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(("kept", "edges"), [(0.5, (0, 1, 7, 8, 9)), (0.34, (0, 1, 2, 6, 7, 8, 9)), (0.9, (9,))])
def test_embed_filter_keeps_the_middle_of_the_heads_singular_vectors(kept: float, edges: tuple[int, ...]):
    random = np.random.default_rng(5)
    head = (random.normal(size=(3000, 10)) * 1.5 ** np.arange(10) + 1).astype(np.float16)
    right = np.linalg.svd(head.astype(np.float64), full_matrices=False)[2]
    bulk = np.delete(right, edges, axis=0)
    preparation = embed_filter(head, kept)
    embeddings = random.normal(size=(20, 10)).astype(np.float32)
    filtered = preparation.adjusted(embeddings)
    np.testing.assert_allclose(filtered, embeddings @ bulk.T @ bulk, atol=1e-5)
    np.testing.assert_allclose(preparation.removed @ preparation.removed.T, np.eye(10 - len(bulk)), atol=1e-6)
    # the authors keep the coefficients alone: the same cosines
    coefficients = Preparation()((embeddings @ bulk.T).astype(np.float32))
    prepared = preparation(embeddings)
    np.testing.assert_allclose(prepared @ prepared.T, coefficients @ coefficients.T, atol=1e-5)


@pytest.mark.parametrize("kept", [-0.5, 0.0, 0.05, 1.0, 2.0])
def test_embed_filter_that_keeps_nothing_or_all_is_refused(kept: float):
    with pytest.raises(ValueError, match=f"some of the 10 directions, but it is {kept}"):
        embed_filter(np.eye(20, 10), kept)


def prepared_in_float64(preparation: Preparation, embeddings: np.ndarray) -> np.ndarray:
    prepared = []
    for h in embeddings.astype(np.float64):
        x = h
        if preparation.shift is not None:
            x = x + preparation.shift
        if preparation.removed is not None:
            x = x - sum(np.dot(x, u) * u for u in preparation.removed.astype(np.float64))
        if preparation.normalize:
            x = x / np.sqrt(np.dot(x, x))
        if preparation.mean is not None:
            x = x - preparation.mean
        prepared.append(x)
    return np.array(prepared)


@pytest.mark.parametrize("removed", [0, 1, 3])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("centre", [True, False])
def test_a_vector_is_added_then_directions_removed_then_the_norm_set_to_1_then_the_mean_subtracted(
    removed: int, shift: bool, normalize: bool, centre: bool
):
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(embeddings)
    added, mean = np.linspace(3, 1, 6, dtype=np.float32), np.linspace(-1, 1, 6, dtype=np.float32)
    preparation = Preparation(
        removed=spectrum.components[:removed] if removed else None,
        shift=added if shift else None,
        normalize=normalize,
        mean=mean if centre else None,
    )
    np.testing.assert_allclose(preparation(embeddings), prepared_in_float64(preparation, embeddings), atol=1e-5)


@given(seeds, st.floats(0, 1), st.integers(1, 3), st.sampled_from(["remove", "shift"]), st.booleans())
def test_a_raw_and_an_adjusted_embedding_are_prepared_to_the_same_vector(
    seed: int, strength: float, n: int, method: str, normalize: bool
):
    embeddings = random_embeddings(seed)
    spectrum = Spectrum.from_embeddings(embeddings)
    mean = np.linspace(-1, 1, 6, dtype=np.float32)
    preparation = replace(spectrum.removal(n), normalize=normalize, mean=mean)
    adjusted = spectrum.adjust(embeddings, strength, n, method)
    np.testing.assert_allclose(preparation(adjusted), preparation(embeddings), atol=1e-4)


@pytest.mark.parametrize("length", [1.0, 0.001, -7.3, 1000.0])
def test_an_embedding_on_the_removed_direction_has_no_content(length: float):
    direction = np.array([3, -4, 12, 84, 1, 2], dtype=np.float64)
    direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    mean = np.linspace(-1, 1, 6, dtype=np.float32)
    prepared = Preparation(removed=direction[None], mean=mean)(length * direction[None])
    np.testing.assert_allclose(prepared, -mean[None], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-3, 1e3, 1e18, 1e30])
@pytest.mark.parametrize("remove", [True, False])
def test_the_length_of_an_embedding_does_not_matter_where_it_is_normalized(scale: float, remove: bool):
    embeddings = random_embeddings()
    preparation = Spectrum.from_embeddings(embeddings).removal() if remove else Preparation()
    scaled = check_embeddings(embeddings.astype(np.float64) * scale)
    np.testing.assert_allclose(preparation(scaled), preparation(embeddings), atol=1e-5)


def test_preparing_changes_no_input():
    embeddings = random_embeddings()
    before = embeddings.copy()
    spectrum = Spectrum.from_embeddings(embeddings)
    Preparation(removed=spectrum.leading(2), shift=embeddings[1], mean=embeddings[0])(embeddings)
    spectrum.adjust(embeddings, method="shift")
    np.testing.assert_array_equal(embeddings, before)
