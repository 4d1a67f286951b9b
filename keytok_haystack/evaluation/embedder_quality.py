# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Quality of an embedder, alone and decoded by its head, to compare it before and after training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from scipy.stats import spearmanr

from keytok_haystack.alignment_measures import Alignment, alignments_among
from keytok_haystack.decoders import calibrate
from keytok_haystack.embedding_space import Preparation, Spectrum
from keytok_haystack.encoders.presets import Role
from keytok_haystack.evaluation.alignment.adjustments import HIT_AT
from keytok_haystack.evaluation.alignment.subject import linear_decoder
from keytok_haystack.evaluation.alignment.token_classes import token_class
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.measures import mean_ndcg
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.utils.files import rounded

_MINIMUM_WORDS, _MINIMUM_TEXTS = 16, 16
_HALVES = "halves of held-out texts"

_RG65 = """
    cord smile 0.02, rooster voyage 0.04, noon string 0.04, fruit furnace 0.05, autograph shore 0.06,
    automobile wizard 0.11, mound stove 0.14, grin implement 0.18, asylum fruit 0.19, asylum monk 0.39,
    graveyard madhouse 0.42, glass magician 0.44, boy rooster 0.44, cushion jewel 0.45, monk slave 0.57,
    asylum cemetery 0.79, coast forest 0.85, grin lad 0.88, shore woodland 0.90, monk oracle 0.91, boy sage 0.96,
    automobile cushion 0.97, mound shore 0.97, lad wizard 0.99, forest graveyard 1.00, food rooster 1.09,
    cemetery woodland 1.18, shore voyage 1.22, bird woodland 1.24, coast hill 1.26, furnace implement 1.37,
    crane rooster 1.41, hill woodland 1.48, car journey 1.55, cemetery mound 1.69, glass jewel 1.78,
    magician oracle 1.82, crane implement 2.37, brother lad 2.41, sage wizard 2.46, oracle sage 2.61, bird crane 2.63,
    bird cock 2.63, food fruit 2.69, brother monk 2.74, asylum madhouse 3.04, furnace stove 3.11, magician wizard 3.21,
    hill mound 3.29, cord string 3.41, glass tumbler 3.45, grin smile 3.46, serf slave 3.46, journey voyage 3.58,
    autograph signature 3.59, coast shore 3.60, forest woodland 3.65, implement tool 3.66, cock rooster 3.68,
    boy lad 3.82, cushion pillow 3.84, cemetery graveyard 3.88, automobile car 3.92, midday noon 3.94, gem jewel 3.94
"""
RATED_PAIRS = [(a, b, float(rating)) for a, b, rating in map(str.split, _RG65.split(","))]
"""
Pairs of nouns, and their similarity as rated by people, from 0 to 4: all of table 1 of "Contextual correlates of
synonymy" (Rubenstein and Goodenough 1965).
"""

Embed = Callable[[Sequence[str], Role], NDArray[np.float32]]
"""Function from `n` texts, all documents or all queries, to their embeddings, shape `(n, d)`."""


@dataclass(frozen=True)
class Retrieval:
    """
    Mean nDCG@10 of a collection's queries.

    :param dense: nDCG@10 of the cosine similarities of the embeddings.
    :param dense_without_pc1: The same with the documents' first principal component removed from documents and queries.
    :param key_tokens: nDCG@10 of the key tokens that the head reads in the embeddings without that component, as many
        as its weighting keeps, without literal tokens of documents or queries.
    """

    dense: float
    dense_without_pc1: float
    key_tokens: float


@dataclass(frozen=True)
class EmbedderQuality:
    """
    Quality of an embedder and its head; for all measures more is better.

    :param collections: Retrieval in each test collection, by its name.
    :param halves: Retrieval of the second halves of held-out texts by their first halves; None if too few texts are
        long enough.
    :param alignment: Alignment of the embeddings of held-out texts with their literal tokens, decoded by the head as it
        is.
    :param content_alignment: Alignment among content tokens alone; training is meant to suppress the others, mostly
        stop words.
    :param word_similarity: Spearman's rho of the cosine similarities of 65 pairs of nouns with human ratings.
    """

    collections: Mapping[str, Retrieval]
    halves: Retrieval | None
    alignment: Alignment
    content_alignment: Alignment
    word_similarity: float

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as JSON data, with numbers rounded to 6 significant digits."""
        data: dict[str, Any] = rounded(asdict(self))
        return data


def judge(
    embed: Embed, head: KeyTokenModel, held_out: Sequence[str], collections: Sequence[Collection] = ()
) -> EmbedderQuality:
    """
    Measure an embedder and its head.

    :param embed: The embedder.
    :param head: The head that decodes its embeddings, as `head_of` reads it.
    :param held_out: Texts that the embedder was not trained on.
    :param collections: Test collections with different names.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: No held-out text has a content token that the head knows.
    """
    cut = halves(held_out)
    features = head.vocabulary.features[: len(head.decoder)]
    content = np.flatnonzero([token_class(feature) == "content" for feature in features])
    among_all, among_content = alignments_among(
        linear_decoder(head),
        head.vocabulary,
        embed(held_out, "document"),
        held_out,
        [np.arange(len(features)), content],
        HIT_AT,
    )
    return EmbedderQuality(
        collections={collection.name: retrieval(embed, head, collection) for collection in collections},
        halves=None if cut is None else retrieval(embed, head, cut),
        alignment=among_all,
        content_alignment=among_content,
        word_similarity=word_similarity(embed),
    )


def retrieval(embed: Embed, head: KeyTokenModel, collection: Collection) -> Retrieval:
    """
    Measure retrieval in a collection by an embedder, and by its head.

    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    """
    documents = check_embeddings(embed(list(collection.documents.values()), "document"), head.dimension)
    queries = check_embeddings(embed(list(collection.queries.values()), "query"), head.dimension)
    removal = Spectrum.from_embeddings(documents).removal()
    dense, dense_without_pc1 = (
        mean_ndcg(collection, prepare(queries) @ prepare(documents).T) for prepare in (Preparation(), removal)
    )
    model = calibrate(head, documents, preparation=removal)
    scores = model.encode_queries(queries).rows @ model.encode_documents(documents).rows.T
    return Retrieval(dense, dense_without_pc1, mean_ndcg(collection, scores.toarray()))


def halves(texts: Sequence[str]) -> Collection | None:
    """
    Make a test collection from texts without judgements, in which the first half of a text finds its second half.

    The first halves are the queries, the second halves the documents; each query has one relevant document.

    :param texts: Texts whose words are separated by white space. Texts of fewer than 16 words and duplicates are left
        out.
    :returns: The collection, or None if fewer than 16 texts remain.
    """
    texts_words = [words for text in dict.fromkeys(texts) if len(words := text.split()) >= _MINIMUM_WORDS]
    if len(texts_words) < _MINIMUM_TEXTS:
        return None
    numbered = {str(number): words for number, words in enumerate(texts_words)}
    return Collection(
        _HALVES,
        documents={number: " ".join(words[len(words) // 2 :]) for number, words in numbered.items()},
        queries={number: " ".join(words[: len(words) // 2]) for number, words in numbered.items()},
        qrels={number: {number: 1} for number in numbered},
    )


def word_similarity(embed: Embed) -> float:
    """
    Return Spearman's rho between an embedder's ranking of pairs of nouns and human ratings (`RATED_PAIRS`).

    The similarity of a pair is the cosine of the unadjusted embeddings of its two nouns. With so few pairs the standard
    error is about .06 at a rho of .7, and .1 at .3.

    :raises EmbeddingError: The embeddings are unusable.
    """
    nouns = sorted({noun for a, b, _ in RATED_PAIRS for noun in (a, b)})
    embedding = dict(zip(nouns, Preparation()(check_embeddings(embed(nouns, "document"))), strict=True))
    cosines = [embedding[a] @ embedding[b] for a, b, _ in RATED_PAIRS]
    if np.ptp(cosines) == 0:
        return 0.0  # the tokenizer knows none of the nouns, or all embeddings are the same
    return float(spearmanr(cosines, [rating for *_, rating in RATED_PAIRS]).statistic)


def comparison(before: EmbedderQuality, after: EmbedderQuality) -> Table:
    """
    Return the measures of two embedders side by side as a table for the terminal, with the better values in bold.

    :param before: Measures of the first embedder, usually the one before training.
    :param after: Measures of the second embedder on the same texts and collections.
    """
    table = Table()
    table.add_column("measure", no_wrap=True)
    for heading in ("before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (title, old), (_, new) in zip(_sections(before), _sections(after), strict=True):
        table.add_row(Text(title, style="dim"))
        for name, value in old.items():
            both = (value, new[name])
            cells = (Text(f"{each:.3f}", style="bold" if each > min(both) else "") for each in both)
            table.add_row(f"  {name}", *cells)
        table.add_section()
    return table


def _sections(quality: EmbedderQuality) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the sections of the measures: a title, and values by their names."""
    retrievals = dict(quality.collections)
    if quality.halves is not None:
        retrievals[_HALVES] = quality.halves
    for name, found in retrievals.items():
        yield (
            f"{name}, nDCG@10",
            {"dense": found.dense, "dense, PC1 removed": found.dense_without_pc1, "key tokens": found.key_tokens},
        )
    alignments = {"literal tokens": quality.alignment, "literal content tokens": quality.content_alignment}
    for name, aligned in alignments.items():
        yield (
            f"held-out texts, alignment with their {name}",
            {
                f"Hit@{HIT_AT}": aligned.hit_at_k,
                "LAR": aligned.local_alignment_rate,
                "GAR": aligned.global_alignment_rate,
                "AUC": aligned.literal_auc,
            },
        )
    yield "similarity of 65 pairs of nouns (RG-65)", {"Spearman's rho": quality.word_similarity}
