# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.rankings import ndcg
from safetensors.numpy import save_file
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax

from keytok_haystack import (
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    TokenDecoder,
    TokenizerVocabulary,
    Vocabulary,
    Weighting,
    alignment,
    calibrate,
    fit,
    from_language_model,
    from_word_embeddings,
    refine,
    tokens_kept,
)
from keytok_haystack.decoders import distillation
from keytok_haystack.encoders import Embedded
from keytok_haystack.evaluation import Collection

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
WORDS = tuple(f"w{i}" for i in range(200))
N, D, K, M = 600, 24, 16, 8
TEMPERATURE = 0.05


class Texts(NamedTuple):
    texts: list[str]
    embeddings: np.ndarray


def about_topics(random: np.random.Generator, n: int, focus: float, shortest: int) -> tuple[list[str], np.ndarray]:
    """Texts about some of 20 topics, and the shares of these, shape (n, 20)."""
    topics = random.dirichlet(np.full(len(WORDS), 0.05), size=20)
    shares = random.dirichlet(np.full(20, focus), size=n)
    words = (random.choice(WORDS, size=random.integers(shortest, 2 * shortest), p=p / p.sum()) for p in shares @ topics)
    return [" ".join(text) for text in words], shares


@pytest.fixture(scope="module")
def corpus() -> Texts:
    """Embeddings know the topics of texts: each is the sum of theirs, and some noise."""
    random = np.random.default_rng(0)
    texts, shares = about_topics(random, N + 100, focus=0.3, shortest=30)
    summed = np.sqrt(shares) @ random.normal(size=(20, D)) + 0.3 * random.normal(size=D)
    return Texts(texts, (summed + 0.05 * random.normal(size=summed.shape)).astype(np.float32))


@pytest.fixture(scope="module")
def given(corpus: Texts) -> Texts:
    """What models are fitted and refined to."""
    return Texts(corpus.texts[:N], corpus.embeddings[:N])


@pytest.fixture(scope="module")
def unseen(corpus: Texts) -> Texts:
    """What has no part in fitting and refining."""
    return Texts(corpus.texts[N:], corpus.embeddings[N:])


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return TokenizerVocabulary.from_tokenizer(str(save_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


@pytest.fixture(scope="module")
def model(given: Texts, vocabulary: Vocabulary) -> KeyTokenModel:
    return fit(given.embeddings, given.texts, vocabulary, weighting=Weighting(K, M))


@pytest.fixture(scope="module")
def refined(model: KeyTokenModel, given: Texts) -> KeyTokenModel:
    return refine(model, given.embeddings, given.texts, device="cpu")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refinement takes a few short steps."""
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distillation, "STEPS", 75)
    patch.setattr(distillation, "_PATIENCE", 9)
    patch.setattr(distillation, "_BATCH", 32)


def save_tokenizer(folder: Path) -> Path:
    ids = {"[UNK]": 0, **{word: i for i, word in enumerate(WORDS, start=1)}}
    contents = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 0,
                "content": "[UNK]",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(contents))
    return folder / "tokenizer.json"


def unigrams(texts: Sequence[str], features: Sequence[str]) -> np.ndarray:
    """The square root of each text's unigram distribution, shape (n, V)."""
    rows = [Counter(text.split()) for text in texts]
    return np.array([[np.sqrt(row[feature] / row.total()) for feature in features] for row in rows])


# the definition, in float64


def strongest_of(matrix: np.ndarray, k: int) -> np.ndarray:
    """Each row without all but its k largest positive entries."""
    kept = np.zeros_like(matrix)
    for row, into in zip(matrix, kept, strict=True):
        columns = [i for i in np.argsort(-row, kind="stable")[:k] if row[i] > 0]
        into[columns] = row[columns]
    return kept


def sparse_scores(model: KeyTokenModel, weight: np.ndarray, given: Texts, k: int, m: int, own: bool) -> np.ndarray:
    """Scores of texts, as queries without their literals, for each other as documents; in no particular unit."""
    preparation, weighting = model.decoder.preparation, model.weighting
    x = given.embeddings.astype(np.float64)
    if preparation.removed is not None:
        x = x - x @ preparation.removed.T @ preparation.removed
    x = x / np.linalg.norm(x, axis=1, keepdims=True) - preparation.mean
    logits = x @ weight.T.astype(np.float64)
    joined = logits.copy()
    if own:
        share = weighting.literal_share / (1 - weighting.literal_share) * weighting.literal_scale
        joined += share * (unigrams(given.texts, model.vocabulary.features) * model.idf[:-1])[:, : len(weight)]
    aligned, documents = strongest_of(logits, m), strongest_of(joined, k)
    queries = aligned / np.maximum(np.linalg.norm(aligned, axis=1, keepdims=True), 1e-300)
    level = np.maximum(documents.max(axis=1, keepdims=True), 1e-300) ** weighting.normalization
    return queries @ ((documents / level) ** weighting.exponent).T


class Definition:
    """The loss of texts for each other: what the first decoder and the dense vectors teach, and how far one is off."""

    def __init__(self, first: KeyTokenModel, given: Texts, rows: np.ndarray | None = None, own: bool = True) -> None:
        rows = np.arange(len(given.texts)) if rows is None else rows
        others = ~np.eye(len(given.texts), dtype=bool)
        unit = given.embeddings / np.linalg.norm(given.embeddings.astype(np.float64), axis=1, keepdims=True)
        dense, k, m = unit @ unit.T, first.weighting.k_document, first.weighting.m_query
        said = sparse_scores(first, first.decoder.weight, given, 2 * k, 2 * m, own)
        taught = 0.3 * dense + 0.7 * said * dense[others].std() / said[others].std()
        self.first, self.own = first, own
        self.rows = Texts([given.texts[row] for row in rows], given.embeddings[rows])
        self.others = ~np.eye(len(rows), dtype=bool)
        self.taught = taught[np.ix_(rows, rows)]

    def scores(self, weight: np.ndarray) -> np.ndarray:
        return sparse_scores(
            self.first, weight, self.rows, self.first.weighting.k_document, self.first.weighting.m_query, self.own
        )

    def divergence(self, weight: np.ndarray, scale: float | None = None) -> float:
        """The mean Kullback-Leibler divergence; without a scale, at the scale of scores where it is least."""
        scores, n = self.scores(weight), len(self.taught)
        target = softmax(self.taught[self.others].reshape(n, n - 1) / TEMPERATURE, axis=1)

        def at(exponent: float) -> float:
            said = log_softmax(np.exp(exponent) * scores[self.others].reshape(n, n - 1), axis=1)
            return float((target * (np.log(np.maximum(target, 1e-300)) - said)).sum(axis=1).mean())

        return at(np.log(scale)) if scale is not None else minimize_scalar(at, bounds=(-5, 10)).fun


# the loss


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "own",
    [pytest.param(True, id="with texts"), pytest.param(False, marks=pytest.mark.slow, id="embeddings alone")],
)
def test_the_loss_falls_on_texts_that_had_no_part(
    model: KeyTokenModel, given: Texts, unseen: Texts, device: str, own: bool
):
    after = refine(model, given.embeddings, given.texts if own else None, device=device)
    definition = Definition(model, unseen, own=own)
    loss = definition.divergence(model.decoder.weight)
    assert loss > 0.1
    assert definition.divergence(after.decoder.weight) < 0.85 * loss


@pytest.mark.parametrize(
    "weighting",
    [Weighting(1, 0), Weighting(1000, 1000), Weighting(5, 3, exponent=1.0, normalization=1.0)],
    ids=["one token", "all tokens", "logits"],
)
def test_the_loss_does_not_rise_for_any_weighting(
    model: KeyTokenModel, given: Texts, unseen: Texts, weighting: Weighting
):
    first = replace(model, weighting=weighting).scaled_to(
        given.embeddings, model.vocabulary.literal_counts(given.texts).known
    )
    after = refine(first, given.embeddings, given.texts)
    # a query of no aligned tokens learns with one
    definition = Definition(first.with_weighting(m_query=max(1, weighting.m_query)), unseen)
    assert definition.divergence(after.decoder.weight) < 1.05 * definition.divergence(model.decoder.weight)


class State(NamedTuple):
    weight: np.ndarray
    scale: float
    losses: list[float]


@pytest.fixture
def watched(
    monkeypatch: pytest.MonkeyPatch, model: KeyTokenModel, given: Texts
) -> Callable[..., tuple[TokenDecoder, list[State], int]]:
    """Refine on the first texts; return the decoder, the student's state at each check, and the number of steps."""

    def run(n: int = N) -> tuple[TokenDecoder, list[State], int]:
        states, losses, steps = [], [], 0
        check, learn = distillation._Student.test, distillation._Student.learn

        def checked(student: Any, *arguments: Any) -> float:
            losses.append(check(student, *arguments))
            weight = student.weight.detach().cpu().numpy().copy()
            states.append(State(weight, student.log_scale.exp().item(), losses.copy()))
            return losses[-1]

        def learned(student: Any, *arguments: Any, **options: Any) -> None:
            nonlocal steps
            steps += 1
            learn(student, *arguments, **options)

        monkeypatch.setattr(distillation._Student, "test", checked)
        monkeypatch.setattr(distillation._Student, "learn", learned)
        decoder = refine(model, given.embeddings[:n], given.texts[:n]).decoder
        return decoder, states[1:], steps

    return run


def test_the_losses_of_the_texts_held_out_are_the_divergence_by_definition(
    watched: Callable[..., tuple[TokenDecoder, list[State], int]], model: KeyTokenModel, given: Texts
):
    _, states, steps = watched()
    assert steps == 25 * len(states) >= 50
    definition = Definition(model, given, np.sort(np.random.default_rng(0).permutation(N)[: N // 10]))
    first = definition.divergence(model.decoder.weight)
    assert states[-1].losses[0] >= 0.99 * first
    for i, state in enumerate(states, start=1):
        assert state.losses == states[-1].losses[: i + 1]
        assert state.losses[i] == pytest.approx(definition.divergence(state.weight, state.scale), rel=5e-3)
    assert min(states[-1].losses) < 0.9 * first


@pytest.mark.parametrize(
    "rate", [0.03, pytest.param(0.1, marks=pytest.mark.slow), pytest.param(0.3, marks=pytest.mark.slow)]
)
def test_it_stops_early_and_returns_the_best_decoder_that_was_checked(
    watched: Callable[..., tuple[TokenDecoder, list[State], int]],
    model: KeyTokenModel,
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
):
    monkeypatch.setattr(distillation, "_LEARNING_RATE", rate)
    monkeypatch.setattr(distillation, "STEPS", 1000)
    decoder, states, steps = watched()
    losses = states[-1].losses
    best = int(np.argmin(losses))
    assert steps == 25 * (len(losses) - 1) < 1000
    assert len(losses) == best + 3, "two more checks than the best one"
    assert best > 0
    np.testing.assert_array_equal(decoder.weight, states[best - 1].weight.astype(np.float16).astype(np.float32))
    assert decoder.preparation is model.decoder.preparation


@pytest.mark.parametrize("n", [16, 25, N])
def test_what_only_gets_worse_is_returned_as_it_was(
    watched: Callable[..., tuple[TokenDecoder, list[State], int]],
    model: KeyTokenModel,
    monkeypatch: pytest.MonkeyPatch,
    n: int,
):
    monkeypatch.setattr(distillation, "_LEARNING_RATE", 50.0)
    decoder, states, steps = watched(n)
    assert steps == 50
    assert states[-1].losses[0] < min(states[-1].losses[1:])
    np.testing.assert_array_equal(decoder.weight, model.decoder.weight)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_where_there_is_little_to_learn_a_decoder_does_not_get_worse(vocabulary: Vocabulary, seed: int):
    """Few texts, and embeddings of nothing but their words, which the fitted decoder already knows."""
    random = np.random.default_rng(seed)
    texts, _ = about_topics(random, 400, focus=0.15, shortest=8)
    words = unigrams(texts, WORDS) @ random.normal(size=(len(WORDS), 48)) + 0.3 * random.normal(size=48)
    embeddings = (words + 0.1 * random.normal(size=words.shape)).astype(np.float32)
    first = fit(embeddings[:300], texts[:300], vocabulary, preparation=Preparation(), weighting=Weighting(8, 4))
    after = refine(first, embeddings[:300], texts[:300])
    definition = Definition(first, Texts(texts[300:], embeddings[300:]))
    assert definition.divergence(after.decoder.weight) < 1.05 * definition.divergence(first.decoder.weight)


def test_texts_that_are_all_alike_teach_nothing_that_is_not_a_number(model: KeyTokenModel):
    same = np.outer(np.random.default_rng(0).uniform(1, 2, size=50), np.ones(D))
    assert np.isfinite(refine(model, same).decoder.weight).all()


# seeds


def test_the_same_seed_gives_the_same_bits(model: KeyTokenModel, given: Texts, refined: KeyTokenModel):
    torch.manual_seed(5)
    before, own = torch.get_rng_state(), model.decoder.weight.copy()
    again = refine(model, given.embeddings.tolist(), tuple(given.texts), device="cpu", seed=0)
    np.testing.assert_array_equal(again.decoder.weight, refined.decoder.weight)
    assert again.weighting == refined.weighting
    assert again.fingerprint == refined.fingerprint != model.fingerprint
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(model.decoder.weight, own)


def test_another_seed_gives_another_decoder(brief: None, model: KeyTokenModel, given: Texts):
    weights = [refine(model, given.embeddings, given.texts, seed=seed).decoder.weight for seed in (0, 1, 2)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert (weights[a] != weights[b]).mean() > 0.5


@pytest.fixture(scope="module")
def briefly_refined(model: KeyTokenModel, given: Texts) -> KeyTokenModel:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return refine(model, given.embeddings, given.texts)


def assert_same(one: KeyTokenModel, other: KeyTokenModel) -> None:
    np.testing.assert_array_equal(one.decoder.weight, other.decoder.weight)
    assert one.fingerprint == other.fingerprint


def test_nothing_is_written(
    brief: None, model: KeyTokenModel, given: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    refine(model, given.embeddings, given.texts)
    assert list(tmp_path.iterdir()) == []


# models


def test_the_refined_model_keeps_all_but_its_decoder_and_its_scales(model: KeyTokenModel, refined: KeyTokenModel):
    assert refined.refined
    assert refined.refine_seconds > 0
    assert not model.refined
    assert model.refine_seconds is None
    for name in ("vocabulary", "source", "embedder", "idf", "spectrum", "fit_seconds"):
        assert getattr(refined, name) is getattr(model, name)
    scales = {"weight_scale": 1.0, "literal_scale": 1.0}
    assert refined.with_weighting(**scales).weighting == model.with_weighting(**scales).weighting
    assert refined.decoder.preparation is model.decoder.preparation
    assert len(refined.decoder) == len(model.decoder)


def test_a_refined_model_is_saved_and_loaded(refined: KeyTokenModel, unseen: Texts, tmp_path: Path):
    refined.save(tmp_path / "model")
    loaded = KeyTokenModel.load(tmp_path / "model")
    assert_same(loaded, refined)
    assert loaded.refined
    assert loaded.refine_seconds == refined.refine_seconds
    weights = [m.encode_documents(unseen.embeddings, unseen.texts).rows.toarray() for m in (loaded, refined)]
    np.testing.assert_array_equal(*weights)


def test_the_strongest_weights_of_the_documents_are_1_in_the_mean(
    brief: None, model: KeyTokenModel, refined: KeyTokenModel, given: Texts
):
    assert refined.encode_documents(given.embeddings, given.texts).rows.toarray().max(axis=1).mean() == pytest.approx(1)
    assert refined.weighting.weight_scale != pytest.approx(model.weighting.weight_scale, rel=1e-3)
    alone = refine(model.with_weighting(literal_share=0), given.embeddings, given.texts)
    assert alone.encode_documents(given.embeddings, given.texts).rows.toarray().max(axis=1).mean() == pytest.approx(1)
    logits = np.maximum(refined.decoder.logits(given.embeddings), 0).max(axis=1).mean()
    literals = (unigrams(given.texts, refined.vocabulary.features) * refined.idf[:-1]).max(axis=1).mean()
    assert refined.weighting.literal_scale == pytest.approx(logits / literals, rel=1e-4)


def test_refining_by_embeddings_alone_leaves_the_literals_of_documents_in(
    brief: None, model: KeyTokenModel, given: Texts
):
    after = refine(model, given.embeddings)
    logits = [m.decoder.top_k(given.embeddings, 1).max(axis=1).toarray().mean() for m in (model, after)]
    expected = model.weighting.literal_scale * logits[1] / logits[0]
    assert after.weighting.literal_scale == pytest.approx(expected, rel=1e-2)


def test_features_without_a_row_stay_as_they_are(brief: None, vocabulary: Vocabulary, given: Texts, unseen: Texts):
    common = int(np.median((unigrams(given.texts, WORDS) > 0).sum(axis=0)))
    first = fit(given.embeddings, given.texts, vocabulary, min_df=common, weighting=Weighting(K, M))
    size = len(first.decoder)
    assert 80 < size < 120
    literals = first.literal_logits(first.vocabulary.literal_counts(given.texts).rows)
    assert literals[:, size:].nnz > 0
    after = refine(first, given.embeddings, given.texts)
    assert after.vocabulary is first.vocabulary
    assert len(after.decoder) == size
    known = distillation.distill(
        first.decoder.weight,
        distillation.TrainingData(
            first.decoder.preparation(given.embeddings),
            Preparation()(given.embeddings),
            csr_array(literals[:, :size]),
        ),
        first.weighting,
        seed=0,
        device=None,
        progress_bar=False,
    )
    np.testing.assert_array_equal(after.decoder.weight, known.astype(np.float16).astype(np.float32))

    # a document's logit for a token that is never decoded is what its text says, in the new unit of logits
    k = len(vocabulary)
    documents = [m.encode_documents(unseen.embeddings, unseen.texts, k).rows.toarray() for m in (first, after)]
    rare = unigrams(unseen.texts, first.vocabulary.features)[:, size:] > 0
    assert rare.any()
    for weights in documents:
        np.testing.assert_array_equal(weights[:, size:] > 0, rare)
    decoded = [
        m.decoder.logits(unseen.embeddings) + m.literal_logits(m.vocabulary.literal_counts(unseen.texts).rows)[:, :size]
        for m in (first, after)
    ]
    own = [m.literal_logits(m.vocabulary.literal_counts(unseen.texts).rows)[:, size:].toarray() for m in (first, after)]
    unit = after.weighting.literal_scale / first.weighting.literal_scale
    np.testing.assert_allclose(own[1], unit * own[0], rtol=1e-5)
    for i, (m, weights) in enumerate(zip((first, after), documents, strict=True)):
        strongest = np.maximum(np.asarray(decoded[i]).max(axis=1), own[i].max(axis=1))
        expected = np.sqrt(own[i] / strongest[:, None] ** 0.25) / m.weighting.weight_scale
        np.testing.assert_allclose(weights[:, size:], expected, rtol=1e-4)


@pytest.mark.parametrize("read", [from_language_model, from_word_embeddings])
@pytest.mark.parametrize("with_texts", [True, False], ids=["with idf", "without idf"])
def test_a_decoder_read_from_a_checkpoint_is_refined(
    given: Texts,
    unseen: Texts,
    model: KeyTokenModel,
    tmp_path: Path,
    read: Callable[[Path], KeyTokenModel],
    with_texts: bool,
):
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": False}))
    directions = dict(zip(model.vocabulary.features, model.decoder.weight, strict=False))
    head = np.array([directions.get(word, np.zeros(D)) for word in ("[UNK]", *WORDS)])
    rows = (10 * (head + 0.1 * np.random.default_rng(2).normal(size=head.shape))).astype(np.float32)
    name = "lm_head.weight" if read is from_language_model else "embeddings.word_embeddings.weight"
    save_file({name: rows}, tmp_path / "model.safetensors")
    texts = given.texts if with_texts else None
    first = calibrate(read(tmp_path).with_weighting(k_document=K, m_query=M), given.embeddings, texts)
    assert first.decoder.weight.max() > 5, "in another unit than a fitted decoder"
    after = refine(first, given.embeddings, texts)
    assert after.source == first.source != "fit"
    definition = Definition(first, unseen, own=with_texts)
    limit = 1.01 if with_texts else 0.95  # literal tokens say most of what there is to learn here
    assert definition.divergence(after.decoder.weight) < limit * definition.divergence(first.decoder.weight)
    assert tokens_kept(first.decoder, after.decoder, unseen.embeddings) > 0.5
    maxima = after.encode_documents(given.embeddings, texts).rows.toarray().max(axis=1)
    assert maxima.mean() == pytest.approx(1)


def test_a_refined_model_may_be_refined_again(brief: None, refined: KeyTokenModel, given: Texts):
    again = refine(refined, given.embeddings, given.texts)
    assert np.isfinite(again.decoder.weight).all()
    assert (again.decoder.weight != refined.decoder.weight).any()


# sampling


class Recorded(Sequence[str]):
    """Texts that remember which of them were read."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.read = texts, []

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        self.read.append(int(index))
        return self.texts[index]


def test_a_large_corpus_is_refined_on_a_sample_and_the_rest_is_never_read(
    brief: None, model: KeyTokenModel, given: Texts, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(import_module("keytok_haystack.decoders.refine"), "_MAXIMUM_TEXTS", 100)
    samples = []
    for seed in (0, 1):
        texts = Recorded(given.texts)
        after = refine(model, given.embeddings, texts, seed=seed)
        sample = sorted(set(texts.read))
        assert len(sample) == 100
        alone = refine(model, given.embeddings[sample], [given.texts[i] for i in sample], seed=seed)
        assert_same(after, alone)
        samples.append(sample)
    assert max(sample[-1] for sample in samples) > 550, "drawn from all of the corpus"
    assert samples[0] != samples[1]


# bad input


@pytest.mark.parametrize("n", [0, 1, 15])
def test_too_few_texts_are_refused(model: KeyTokenModel, given: Texts, n: int):
    message = f"at least 16 texts, but there are {n}"
    with pytest.raises(ValueError, match=message):
        refine(model, given.embeddings[:n], given.texts[:n])
    with pytest.raises(ValueError, match=message):
        refine(model, given.embeddings[:n])


def test_16_texts_are_enough(brief: None, model: KeyTokenModel, given: Texts):
    assert np.isfinite(refine(model, given.embeddings[:16], given.texts[:16]).decoder.weight).all()


@pytest.mark.parametrize("n", [0, 1, N - 1])
def test_another_number_of_texts_is_refused(model: KeyTokenModel, given: Texts, n: int):
    with pytest.raises(ValueError, match=f"{N} embeddings, but {n} texts"):
        refine(model, given.embeddings, given.texts[:n])
    with pytest.raises(ValueError, match=f"{n} embeddings, but {N} texts"):
        refine(model, given.embeddings[:n], given.texts)


def test_one_string_instead_of_texts_is_refused(model: KeyTokenModel, given: Texts):
    with pytest.raises(TypeError, match="not one string"):
        refine(model, given.embeddings, "x" * N)


@pytest.mark.parametrize("d", [D - 1, D + 1])
def test_another_dimension_is_refused(model: KeyTokenModel, given: Texts, d: int):
    with pytest.raises(EmbeddingError, match=f"{d} dimensions, but {D}"):
        refine(model, np.ones((N, d)))


def test_an_embedding_that_cannot_be_used_is_named(model: KeyTokenModel, given: Texts):
    broken = given.embeddings.copy()
    broken[41] = 0
    with pytest.raises(EmbeddingError, match="Embedding 41 is the zero vector"):
        refine(model, broken)


def test_a_device_that_is_not_there_is_refused(model: KeyTokenModel, given: Texts):
    for device in ("toaster", "cuda:99"):
        with pytest.raises(ValueError, match=device):
            refine(model, given.embeddings, given.texts, device=device)


def test_progress_is_shown_if_it_is_asked_for(
    brief: None, model: KeyTokenModel, given: Texts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("keytok_haystack.utils.progress._SECONDS", 0)  # all of the lines that are said elsewhere
    refine(model, given.embeddings, given.texts, progress_bar=True)
    shown = capsys.readouterr().err
    assert "Refining" in shown
    assert "held out" in shown
    refine(model, given.embeddings, given.texts)
    assert capsys.readouterr() == ("", "")


# a real collection


@pytest.fixture(scope="module")
def cranfield_refined(
    cranfield: Collection, cranfield_documents: Embedded, cranfield_model: KeyTokenModel
) -> KeyTokenModel:
    return refine(cranfield_model, cranfield_documents.embeddings, list(cranfield.documents.values()))


@pytest.mark.slow
@pytest.mark.slow
def test_refined_tokens_of_cranfield_still_mean_themselves(
    cranfield: Collection,
    cranfield_documents: Embedded,
    cranfield_model: KeyTokenModel,
    cranfield_refined: KeyTokenModel,
):
    rows = np.arange(0, 1400, 7)
    embeddings = cranfield_documents.embeddings[rows]
    texts = [list(cranfield.documents.values())[row] for row in rows]
    models = cranfield_model, cranfield_refined
    logits = [m.decoder.logits(embeddings) for m in models]
    top = [[set(np.argsort(-row)[:10]) for row in rows] for rows in logits]
    kept = np.mean([len(old & new) / 10 for old, new in zip(*top, strict=True)])
    assert kept > 0.5
    assert tokens_kept(cranfield_model.decoder, cranfield_refined.decoder, embeddings) == pytest.approx(kept)

    counts = cranfield_model.vocabulary.literal_counts(texts).rows[:, : len(cranfield_model.decoder)]
    areas = []
    for values in logits:
        own = [(counts[[i]].indices, row) for i, row in enumerate(values) if counts[[i]].nnz]
        pairs = [(row[mine][:, None], np.delete(row, mine)) for mine, row in own]
        areas.append(np.mean([(mine > others).mean() + (mine == others).mean() / 2 for mine, others in pairs]))
    assert areas[1] > 0.9 * areas[0]
    measured = [alignment(m.decoder, m.vocabulary, embeddings, texts).literal_auc for m in models]
    assert measured == pytest.approx(areas)


@pytest.mark.slow
def test_cranfield_is_retrieved_as_well_by_64_tokens(
    cranfield: Collection,
    cranfield_documents: Embedded,
    cranfield_queries: Embedded,
    cranfield_model: KeyTokenModel,
    cranfield_refined: KeyTokenModel,
):
    texts, questions = list(cranfield.documents.values()), list(cranfield.queries.values())
    found = []
    for m in (cranfield_model, cranfield_refined):
        documents = m.encode_documents(cranfield_documents.embeddings, texts, 64).known
        assert np.diff(documents.indptr).max() == 64
        queries = m.encode_queries(cranfield_queries.embeddings, questions).known
        found.append(ndcg(cranfield, (queries @ documents.T).toarray()))
    fitted, refined = found
    assert refined >= fitted - 0.005
    assert refined > ndcg(cranfield, cranfield_queries.embeddings @ cranfield_documents.embeddings.T)


# the command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Texts) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in given.texts))
    np.save("embeddings.npy", given.embeddings)
    return tmp_path


@pytest.fixture(scope="module")
def model_of_words(given: Texts) -> KeyTokenModel:
    """What the command fits."""
    return fit(given.embeddings, given.texts, weighting=Weighting(K, M))


DATA = "texts.jsonl --embeddings embeddings.npy"
FIT = f"fit {DATA} --output new/out --k 16 --m 8".split()
Keytok = Callable[..., tuple[int, str, str]]


def test_the_command_refines_and_prints_whether_tokens_still_mean_themselves(
    brief: None, keytok: Keytok, place: Path, model_of_words: KeyTokenModel, given: Texts
):
    code, out, err = keytok(*FIT, "--refine")
    assert (code, err) == (0, "")
    refined = refine(model_of_words, given.embeddings, given.texts)
    assert_same(KeyTokenModel.load("new/out"), refined)
    assert [path.name for path in Path("new").iterdir()] == ["out"]
    before, after = (
        alignment(m.decoder, m.vocabulary, given.embeddings, given.texts) for m in (model_of_words, refined)
    )
    lines = [line.split() for line in out.splitlines()]
    shown = {" ".join(words[:-2]): words[-2:] for words in lines if len(words) > 2}
    assert shown["literal tokens rank above others (AUC)"] == [f"{m.literal_auc:.3f}" for m in (before, after)]
    assert shown["local alignment rate"] == [f"{m.local_alignment_rate:.3f}" for m in (before, after)]
    assert shown["global alignment rate"] == [f"{m.global_alignment_rate:.3f}" for m in (before, after)]
    hits = [f"{m.hit_at_k:.3f}" for m in (before, after)]
    assert shown["texts with a literal token in their top 10 (Hit@10)"] == hits
    kept = tokens_kept(model_of_words.decoder, refined.decoder, given.embeddings)
    assert ["top-10", "tokens", "kept", f"{kept:.0%}"] in lines
    assert ["fitted", "refined"] in lines


def test_the_command_prints_json(brief: None, keytok: Keytok, place: Path, model_of_words: KeyTokenModel, given: Texts):
    code, out, err = keytok(*FIT, "--refine", "--seed", 3, "--device", "cpu", "--json")
    assert (code, err) == (0, "")
    expected = refine(model_of_words, given.embeddings, given.texts, seed=3, device="cpu")
    summary, loaded = json.loads(out), KeyTokenModel.load("new/out")
    assert_same(loaded, expected)
    assert summary["fingerprint"] == expected.fingerprint
    assert summary["seconds"]["refine"] == loaded.refine_seconds > 0
    changes = summary["refinement"]
    assert changes["tokens_kept"] == tokens_kept(model_of_words.decoder, expected.decoder, given.embeddings)
    for name, m in (("before", model_of_words), ("after", expected)):
        assert changes[name] == vars(alignment(m.decoder, m.vocabulary, given.embeddings, given.texts))


def test_the_command_does_not_refine_if_it_is_not_asked_to(keytok: Keytok, place: Path, model_of_words: KeyTokenModel):
    code, out, _ = keytok(*FIT, "--json")
    assert code == 0
    assert (json.loads(out)["seconds"]["refine"], json.loads(out)["refinement"]) == (None, None)
    assert_same(KeyTokenModel.load("new/out"), model_of_words)
    code, out, _ = keytok(*FIT)
    assert "refined" not in out.lower()


BAD_INPUT = {"--seed -1": "seed", "--device toaster": "toaster", "--device cuda:99": "cuda:99"}


@pytest.mark.parametrize("options", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing_behind(keytok: Keytok, place: Path, options: str):
    code, out, err = keytok(*FIT, "--refine", *options.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert BAD_INPUT[options] in err
    assert not Path("new").exists()


def test_too_few_texts_are_one_line_and_leave_nothing_behind(keytok: Keytok, place: Path, given: Texts):
    Path("texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in given.texts[:15]))
    np.save("embeddings.npy", given.embeddings[:15])
    code, out, err = keytok(*FIT, "--refine")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "at least 16 texts" in err
    assert not Path("new").exists()


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
import numpy as np
from keytok_haystack import KeyTokenModel, refine
from keytok_haystack.cli import main
try:
    refine(KeyTokenModel.load(sys.argv.pop(1)), np.ones((60, 24)))
except ModuleNotFoundError as error:
    print(error.name, error)
main()
"""


def test_without_torch_the_extra_is_named(place: Path, model: KeyTokenModel):
    model.save("model")
    command = [sys.executable, "-c", WITHOUT_TORCH, "model", *FIT, "--refine"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == 'torch Refining needs torch: pip install "keytok-haystack[refine]"\n'
    assert done.returncode == 1
    assert done.stderr == 'Refining needs torch: pip install "keytok-haystack[refine]"\n'
    assert not Path("new").exists()
