# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from helpers.rankings import ndcg
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.util import cos_sim
from tokenizers import Tokenizer, models, pre_tokenizers

from keytok_haystack import (
    Alignment,
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    TokenDecoder,
    TokenizerVocabulary,
    Vocabulary,
    alignment,
)
from keytok_haystack.encoders import head_of, load_encoder
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.embedder_quality import (
    RATED_PAIRS,
    Embed,
    EmbedderQuality,
    Retrieval,
    comparison,
    halves,
    judge,
    retrieval,
    word_similarity,
)

K, M = 8, 5
# "Contextual correlates of semantic similarity" (Miller and Charles 1991): 30 of the pairs, rated by other people
RATED_AGAIN = """
    car automobile 3.92, gem jewel 3.84, journey voyage 3.84, boy lad 3.76, coast shore 3.70, asylum madhouse 3.61,
    magician wizard 3.50, midday noon 3.42, furnace stove 3.11, food fruit 3.08, bird cock 3.05, bird crane 2.97,
    tool implement 2.95, brother monk 2.82, lad brother 1.66, crane implement 1.68, journey car 1.16, monk oracle 1.10,
    cemetery woodland 0.95, food rooster 0.89, coast hill 0.87, forest graveyard 0.84, shore woodland 0.63,
    monk slave 0.55, coast forest 0.42, lad wizard 0.42, cord smile 0.13, glass magician 0.11, rooster voyage 0.08,
    noon string 0.08
"""


@pytest.fixture(scope="module")
def minilm(embedder: str) -> SentenceTransformer:
    return SentenceTransformer(embedder)


@pytest.fixture(scope="module")
def by_minilm(minilm: SentenceTransformer) -> Embed:
    return lambda texts, _: minilm.encode(list(texts))


@pytest.fixture(scope="module")
def by_words(small_vocabulary: Vocabulary) -> Embed:
    """Random projections of the texts' words, plus what all documents and what all queries share; noisy, d = 8."""
    projection, *shared = np.split(np.random.default_rng(1).normal(size=(14, 8)), [12, 13])

    def embed(texts: Sequence[str], role: str) -> np.ndarray:
        noise = np.random.default_rng(len(texts)).normal(size=(len(texts), 8))
        counts = small_vocabulary.literal_counts(texts).rows.toarray()
        return (counts @ projection + 2 * shared[role == "query"] + noise).astype(np.float32)

    return embed


@pytest.fixture(scope="module")
def head(small_vocabulary: Vocabulary) -> KeyTokenModel:
    matrix = np.random.default_rng(2).normal(size=(12, 8)).astype(np.float16)
    model = KeyTokenModel(small_vocabulary, TokenDecoder(matrix, Preparation()), source="language-model")
    return model.with_weighting(k_document=K, m_query=M, gain_share=1.0)


@pytest.fixture(scope="module")
def collection(small_texts: list[str]) -> Collection:
    grades = np.random.default_rng(3).choice([0, 0, 0, 1, 2], size=(20, 40))
    return Collection(
        "words",
        {f"d{i}": text for i, text in enumerate(small_texts[:40])},
        {f"q{i}": text for i, text in enumerate(small_texts[40:])},
        {f"q{i}": {f"d{j}": int(grade) for j, grade in enumerate(row)} for i, row in enumerate(grades)},
    )


def strongest(logits: np.ndarray, size: int) -> np.ndarray:
    """Positive logits, at most so many in each row; 0 for the others."""
    return np.where(logits >= np.sort(logits, axis=1)[:, [-size]], logits, 0).clip(min=0)


def test_retrieval_is_what_the_definitions_give(by_words: Embed, head: KeyTokenModel, collection: Collection):
    documents = by_words(list(collection.documents.values()), "document").astype(np.float64)
    queries = by_words(list(collection.queries.values()), "query").astype(np.float64)
    first = np.linalg.svd(documents)[2][0]
    documents_left, queries_left = (x - np.outer(x @ first, first) for x in (documents, queries))
    units, query_units = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (documents_left, queries_left))
    matrix = head.decoder.weight.astype(np.float64)
    read, asked = ((x - units.mean(axis=0)) @ matrix.T for x in (units, query_units))
    weights = np.sqrt(strongest(read, K) / read.max(axis=1, keepdims=True) ** 0.25)
    shared = strongest(asked, M) / asked.max(axis=1, keepdims=True) @ weights.T
    assert ((shared > 0).sum(axis=1) >= 10).all()  # where fewer are found, those that are not would rank, too
    expected = [
        ndcg(collection, cos_sim(queries, documents).numpy()),
        ndcg(collection, cos_sim(queries_left, documents_left).numpy()),
        ndcg(collection, shared),
    ]
    measured = retrieval(by_words, head, collection)
    assert [measured.dense, measured.dense_without_pc1, measured.key_tokens] == pytest.approx(expected)
    assert len(set(expected)) == 3


def test_halves_of_a_text_are_a_query_and_its_document():
    numbers = [" ".join(f"{i}.{j}" for j in range(17)) for i in range(20)]
    texts = ["too short", " ".join("abcdefghijklmno"), "  a b c d e f g h\n\ni j k l m n o p ", *numbers]
    cut = halves(texts)
    assert cut is not None
    assert list(cut.queries.values()) == ["a b c d e f g h", *(" ".join(text.split()[:8]) for text in numbers)]
    assert list(cut.documents.values()) == ["i j k l m n o p", *(" ".join(text.split()[8:]) for text in numbers)]
    assert cut.qrels == {query: {query: 1} for query in cut.queries}
    assert list(cut.queries) == list(cut.documents)


@settings(max_examples=30)
@given(st.lists(st.integers(15, 18), min_size=14, max_size=40))
def test_halves_are_of_sixteen_different_long_texts_or_more(lengths: list[int]):
    texts = [" ".join(f"{i}.{j}" for j in range(length)) for i, length in enumerate(lengths)]
    cut, long = halves([*texts, *texts]), [text for text in texts if len(text.split()) >= 16]
    assert (cut is None) == (len(long) < 16)
    assert cut is None or [f"{cut.queries[i]} {cut.documents[i]}" for i in cut.qrels] == long


def test_the_halves_of_abstracts_find_each_other(by_minilm: Embed, embedder: str, cranfield: Collection):
    cut = halves([text for text in cranfield.documents.values() if 40 < len(text.split()) < 60][:20])
    assert cut is not None
    embeddings = {
        role: by_minilm(list(each.values()), role)
        for role, each in [("query", cut.queries), ("document", cut.documents)]
    }
    head = head_of(embedder).with_weighting(gain_share=1.0)
    found = retrieval(lambda texts, role: embeddings[role], head, cut)
    assert found.dense == pytest.approx(ndcg(cut, cos_sim(*embeddings.values()).numpy()))
    assert min(found.dense, found.dense_without_pc1, found.key_tokens) > 0.7


def test_random_vectors_find_halves_and_literal_tokens_by_chance(head: KeyTokenModel, small_texts: list[str]):
    def by_chance(texts: Sequence[str], role: str) -> np.ndarray:
        return np.random.default_rng(len(role)).normal(size=(len(texts), 8)).astype(np.float32)

    texts = [" ".join(np.random.default_rng(seed).permutation(small_texts)[:12]) for seed in range(400)]
    quality = judge(by_chance, head, texts)
    mean_gain = sum(1 / np.log2(np.arange(2, 12))) / 400  # over all ranks, of which the first ten count
    assert quality.halves is not None
    for value in (quality.halves.dense, quality.halves.dense_without_pc1, quality.halves.key_tokens):
        assert value == pytest.approx(mean_gain, abs=0.015)
    assert judge(by_chance, head, small_texts).alignment.literal_auc == pytest.approx(0.5, abs=0.05)


def test_alignment_is_that_of_the_head_as_it_is(
    by_words: Embed, head: KeyTokenModel, collection: Collection, small_texts: list[str]
):
    quality = judge(by_words, head, small_texts, [collection, replace(collection, name="again")])
    embeddings = by_words(small_texts, "document")
    assert quality.alignment == alignment(head.decoder, head.vocabulary, embeddings, small_texts, k=10)
    assert quality.content_alignment == quality.alignment  # all words are content
    assert quality.collections == dict.fromkeys(["words", "again"], retrieval(by_words, head, collection))
    assert quality.halves is None


def test_content_alignment_is_as_if_there_were_no_stop_words(
    by_words: Embed, head: KeyTokenModel, small_vocabulary: Vocabulary, small_texts: list[str]
):
    stop_words = {"the", "and", "of"}
    ids = {word: i for i, word in enumerate(["[UNK]", *sorted(stop_words), *small_vocabulary.features[:9]])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]"])
    vocabulary = TokenizerVocabulary.from_tokenizer(tokenizer)
    kept = [i for i, feature in enumerate(vocabulary.features) if feature not in stop_words]
    quality = judge(by_words, replace(head, vocabulary=vocabulary), small_texts)
    alone = TokenDecoder(head.decoder.weight[kept], Preparation())
    words = vocabulary.reordered(vocabulary.order_with_first(np.array(kept)))
    assert len(vocabulary) == len(kept) + 3
    assert quality.content_alignment == alignment(alone, words, by_words(small_texts, "document"), small_texts)
    assert quality.content_alignment != quality.alignment


def test_the_rated_pairs_are_those_of_the_paper():
    assert len({frozenset(pair[:2]) for pair in RATED_PAIRS}) == 65
    assert len({noun for pair in RATED_PAIRS for noun in pair[:2]}) == 48
    ratings = [rating for *_, rating in RATED_PAIRS]
    assert ratings == sorted(ratings)
    assert (ratings[0], ratings[-1]) == (0.02, 3.94)
    again = {frozenset(words): float(rating) for *words, rating in map(str.split, RATED_AGAIN.split(","))}
    both = [(rating, again[pair]) for a, b, rating in RATED_PAIRS if (pair := frozenset((a, b))) in again]
    assert len(both) == 30
    assert np.corrcoef(np.transpose(both))[0, 1] == pytest.approx(0.97, abs=0.005)  # as Miller and Charles report


def test_word_similarity_is_that_of_sentence_transformers(by_minilm: Embed, minilm: SentenceTransformer):
    evaluator = EmbeddingSimilarityEvaluator(*map(list, zip(*RATED_PAIRS, strict=True)), main_similarity="cosine")
    similarity = word_similarity(by_minilm)
    assert similarity == pytest.approx(evaluator(minilm)["spearman_cosine"], abs=1e-3)
    assert similarity > 0.7
    assert word_similarity(lambda texts, role: -3 * by_minilm(texts, role)) == pytest.approx(similarity, abs=1e-3)


def test_an_embedder_that_tells_nothing_apart_does_not_rank_pairs():
    assert word_similarity(lambda texts, role: np.ones((len(texts), 4), dtype=np.float32)) == 0


def test_a_language_model_with_its_head_is_judged_and_written_as_json(
    tiny, collection: Collection, small_texts: list[str]
):
    embedder = f"prompt-eol:{tiny('llama')}"
    texts = [" ".join(small_texts[start : start + 6]) for start in range(40)]
    quality = judge(load_encoder(embedder).encode, head_of(embedder), texts, [collection])
    data = json.loads(json.dumps(quality.to_dict()))
    read = EmbedderQuality(
        {name: Retrieval(**values) for name, values in data["collections"].items()},
        Retrieval(**data["halves"]),
        Alignment(**data["alignment"]),
        Alignment(**data["content_alignment"]),
        data["word_similarity"],
    )
    assert read.to_dict() == data
    values = [*data["collections"]["words"].values(), *data["halves"].values(), *data["alignment"].values()]
    assert all(0 <= value <= 1 for value in values)
    assert read.word_similarity == pytest.approx(quality.word_similarity, rel=1e-5)


def test_embeddings_of_another_dimension_are_refused(by_words: Embed, head: KeyTokenModel, collection: Collection):
    with pytest.raises(EmbeddingError, match="have 4 dimensions, but 8 are expected"):
        judge(lambda texts, role: by_words(texts, role)[:, :4], head, ["lift"], [collection])


def shown(before: EmbedderQuality, after: EmbedderQuality) -> list[list[str]]:
    """The rows of the table, bold numbers in asterisks."""
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system="truecolor", legacy_windows=False)
    console.print(comparison(before, after))
    written = re.sub(
        "\x1b\\[2m|\x1b\\[1m([^\x1b]*)",
        lambda style: f"*{style[1].strip()}*" if style[1] else "",
        console.file.getvalue(),
    )
    rows = [row.split("│")[1:-1] for row in written.replace("\x1b[0m", "").splitlines()]
    return [[cell.strip() for cell in row] for row in rows if row]


def test_the_table_says_what_was_better_before_and_after():
    before = EmbedderQuality(
        {"[wings]": Retrieval(0.1, 0.2, 0.3)},
        Retrieval(0.4, 0.5, 0.6),
        Alignment(0.7, 0.25, 0.125, 0.9),
        Alignment(0.1, 0.2, 0.3, 0.4),
        -0.5,
    )
    after = EmbedderQuality(
        {"[wings]": Retrieval(0.15, 0.2, 0.2)},
        Retrieval(0.5, 0.6, 1.0),
        Alignment(0.8, 0.5, 0.5, 0.8),
        Alignment(0.5, 0.6, 0.7, 0.8),
        0.25,
    )
    nothing = ["", ""]
    retrieval_rows = [
        ["[wings], nDCG@10", *nothing],
        ["dense", "0.100", "*0.150*"],
        ["dense, PC1 removed", "0.200", "0.200"],
        ["key tokens", "*0.300*", "0.200"],
    ]
    halves_rows = [
        ["halves of held-out texts, nDCG@10", *nothing],
        ["dense", "0.400", "*0.500*"],
        ["dense, PC1 removed", "0.500", "*0.600*"],
        ["key tokens", "0.600", "*1.000*"],
    ]
    other_rows = [
        ["held-out texts, alignment with their literal tokens", *nothing],
        ["Hit@10", "0.700", "*0.800*"],
        ["LAR", "0.250", "*0.500*"],
        ["GAR", "0.125", "*0.500*"],
        ["AUC", "*0.900*", "0.800"],
        ["held-out texts, alignment with their literal content tokens", *nothing],
        ["Hit@10", "0.100", "*0.500*"],
        ["LAR", "0.200", "*0.600*"],
        ["GAR", "0.300", "*0.700*"],
        ["AUC", "0.400", "*0.800*"],
        ["similarity of 65 pairs of nouns (RG-65)", *nothing],
        ["Spearman's rho", "-0.500", "*0.250*"],
    ]
    assert shown(before, after) == [*retrieval_rows, *halves_rows, *other_rows]
    assert shown(replace(before, halves=None), replace(after, halves=None)) == [*retrieval_rows, *other_rows]
