# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import EmbeddingError, Preparation, Spectrum
from keytok_haystack.spectrum import check_embeddings, in_batches

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


def test_adjusting_twice_changes_nothing():
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(embeddings)
    once = spectrum.adjust(embeddings)
    np.testing.assert_allclose(spectrum.adjust(once), once, atol=1e-6)


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
        ([[1, 2, "lift"]], "vectors of one length"),
        ([[1, 2, None]], "Embedding 0 contains NaN"),
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


def prepared_in_float64(preparation: Preparation, embeddings: np.ndarray) -> np.ndarray:
    prepared = []
    for h in embeddings.astype(np.float64):
        x = h
        if preparation.removed is not None:
            x = x - np.dot(x, preparation.removed.astype(np.float64)) * preparation.removed
        if preparation.normalize:
            x = x / np.sqrt(np.dot(x, x))
        if preparation.mean is not None:
            x = x - preparation.mean
        prepared.append(x)
    return np.array(prepared)


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("centre", [True, False])
def test_a_direction_is_removed_then_the_norm_set_to_1_then_the_mean_subtracted(
    remove: bool, normalize: bool, centre: bool
):
    embeddings = random_embeddings()
    spectrum = Spectrum.from_embeddings(embeddings)
    mean = np.linspace(-1, 1, 6, dtype=np.float32)
    preparation = Preparation(spectrum.pc1 if remove else None, normalize, mean if centre else None)
    np.testing.assert_allclose(preparation(embeddings), prepared_in_float64(preparation, embeddings), atol=1e-5)


@given(seeds, st.floats(0, 1), st.booleans())
def test_a_raw_and_an_adjusted_embedding_are_prepared_to_the_same_vector(seed: int, strength: float, normalize: bool):
    embeddings = random_embeddings(seed)
    spectrum = Spectrum.from_embeddings(embeddings)
    preparation = Preparation(spectrum.pc1, normalize, mean=np.linspace(-1, 1, 6, dtype=np.float32))
    adjusted = spectrum.adjust(embeddings, strength)
    np.testing.assert_allclose(preparation(adjusted), preparation(embeddings), atol=1e-4)


@pytest.mark.parametrize("length", [1.0, 0.001, -7.3, 1000.0])
def test_an_embedding_on_the_removed_direction_has_no_content(length: float):
    direction = np.array([3, -4, 12, 84, 1, 2], dtype=np.float64)
    direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    mean = np.linspace(-1, 1, 6, dtype=np.float32)
    prepared = Preparation(direction, mean=mean)(length * direction[None])
    np.testing.assert_allclose(prepared, -mean[None], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-3, 1e3, 1e18, 1e30])
@pytest.mark.parametrize("remove", [True, False])
def test_the_length_of_an_embedding_does_not_matter_where_it_is_normalized(scale: float, remove: bool):
    embeddings = random_embeddings()
    preparation = Preparation(Spectrum.from_embeddings(embeddings).pc1 if remove else None)
    scaled = check_embeddings(embeddings.astype(np.float64) * scale)
    np.testing.assert_allclose(preparation(scaled), preparation(embeddings), atol=1e-5)


def test_preparing_changes_no_input():
    embeddings = random_embeddings()
    before = embeddings.copy()
    Preparation(Spectrum.from_embeddings(embeddings).pc1, mean=embeddings[0])(embeddings)
    np.testing.assert_array_equal(embeddings, before)
