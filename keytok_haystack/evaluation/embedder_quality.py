# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How good an embedder is, alone and read by its head: what is compared before and after it is trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from scipy.stats import spearmanr

from keytok_haystack.alignment import Alignment, alignments_among
from keytok_haystack.decoders import calibrate
from keytok_haystack.embedding_space import Preparation, Spectrum
from keytok_haystack.encoders.presets import Role
from keytok_haystack.evaluation.alignment_report import HIT_AT, ndcg, token_class, unprepared
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.experiment import rounded
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import check_embeddings

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
Pairs of nouns, and how similar people find them, from 0 to 4: all of table 1 of "Contextual correlates of synonymy"
(Rubenstein and Goodenough 1965).
"""

Embed = Callable[[Sequence[str], Role], NDArray[np.float32]]
"""From `n` texts, all documents or all queries, to their embeddings, shape `(n, d)`."""


@dataclass(frozen=True)
class Retrieval:
    """
    The nDCG@10 of a collection's queries.

    :param dense: Of the cosine similarities of the embeddings.
    :param dense_without_pc1: Of the same with the first principal component of the documents removed from both.
    :param key_tokens: Of the key tokens that the head reads in the embeddings without that component, as many as its
        weighting says, no literal ones on either side.
    """

    dense: float
    dense_without_pc1: float
    key_tokens: float


@dataclass(frozen=True)
class EmbedderQuality:
    """
    What is measured of an embedder and its head; of everything more is better.

    :param collections: Retrieval in each test collection, by its name.
    :param halves: Retrieval of the second halves of held-out texts by their first halves; None where too few are long
        enough.
    :param alignment: How the embeddings of held-out texts align with their own tokens, read by the head as it is.
    :param content_alignment: The same among content tokens alone: of the others, mostly stop words, embeddings are
        meant to be rid.
    :param word_similarity: Spearman's rho of the cosine similarities of 65 pairs of nouns with human ratings.
    """

    collections: Mapping[str, Retrieval]
    halves: Retrieval | None
    alignment: Alignment
    content_alignment: Alignment
    word_similarity: float

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as JSON data, numbers rounded to 6 significant digits."""
        data: dict[str, Any] = rounded(asdict(self))
        return data


def judge(
    embed: Embed, head: KeyTokenModel, held_out: Sequence[str], collections: Sequence[Collection] = ()
) -> EmbedderQuality:
    """
    Measure an embedder and its head.

    :param embed: The embedder.
    :param head: What decodes its embeddings, as `head_of` reads it.
    :param held_out: Texts that the embedder was not trained on.
    :param collections: Test collections, of different names.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: No held-out text has a content token that the head knows.
    """
    cut = halves(held_out)
    features = head.vocabulary.features[: len(head.decoder)]
    content = np.flatnonzero([token_class(feature) == "content" for feature in features])
    everything, content_alone = alignments_among(
        unprepared(head),
        head.vocabulary,
        embed(held_out, "document"),
        held_out,
        [np.arange(len(features)), content],
        HIT_AT,
    )
    return EmbedderQuality(
        collections={collection.name: retrieval(embed, head, collection) for collection in collections},
        halves=None if cut is None else retrieval(embed, head, cut),
        alignment=everything,
        content_alignment=content_alone,
        word_similarity=word_similarity(embed),
    )


def retrieval(embed: Embed, head: KeyTokenModel, collection: Collection) -> Retrieval:
    """
    Measure what an embedder, and its head, find of a collection.

    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    """
    documents = check_embeddings(embed(list(collection.documents.values()), "document"), head.dimension)
    queries = check_embeddings(embed(list(collection.queries.values()), "query"), head.dimension)
    removal = Spectrum.from_embeddings(documents).removal()
    dense, dense_without_pc1 = (
        ndcg(collection, prepare(queries) @ prepare(documents).T) for prepare in (Preparation(), removal)
    )
    model = calibrate(head, documents, preparation=removal)
    shared = model.encode_queries(queries) @ model.encode_documents(documents).T
    return Retrieval(dense, dense_without_pc1, ndcg(collection, shared.toarray()))


def halves(texts: Sequence[str]) -> Collection | None:
    """
    Make a test collection of texts that nobody has judged: which second half belongs to a first half?

    The first halves are the queries, the second halves the documents; each query has one relevant document.

    :param texts: Texts whose words are set apart by white space. Those of fewer than 16 words are left out, and of
        equal ones all but the first.
    :returns: The collection; None where fewer than 16 texts remain.
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
    Return how far an embedder ranks pairs of nouns as people do: Spearman's rho with `RATED_PAIRS`.

    A pair's similarity is the cosine of the embeddings of its two nouns, as they are. The pairs are few: the standard
    error is about .06 where rho is .7, and .1 where it is .3.

    :raises EmbeddingError: The embeddings are unusable.
    """
    nouns = sorted({noun for a, b, _ in RATED_PAIRS for noun in (a, b)})
    embedding = dict(zip(nouns, Preparation()(check_embeddings(embed(nouns, "document"))), strict=True))
    cosines = [embedding[a] @ embedding[b] for a, b, _ in RATED_PAIRS]
    if np.ptp(cosines) == 0:
        return 0.0  # the tokenizer knows none of the nouns, or the embedder tells nothing apart
    return float(spearmanr(cosines, [rating for *_, rating in RATED_PAIRS]).statistic)


def comparison(before: EmbedderQuality, after: EmbedderQuality) -> Table:
    """
    Return two embedders' measures side by side as a table for the terminal, the better one of each in bold.

    :param before: The measures of the first one.
    :param after: Those of the other one, or of the same after training, with the same texts and collections.
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
    """Go through the measures: a title, and what is measured by its name."""
    retrieved = dict(quality.collections)
    if quality.halves is not None:
        retrieved[_HALVES] = quality.halves
    for name, found in retrieved.items():
        yield (
            f"{name}, nDCG@10",
            {"dense": found.dense, "dense, PC1 removed": found.dense_without_pc1, "key tokens": found.key_tokens},
        )
    aligned = {"own tokens": quality.alignment, "own content tokens": quality.content_alignment}
    for name, own in aligned.items():
        yield (
            f"held-out texts, alignment with their {name}",
            {
                f"Hit@{HIT_AT}": own.hit_at_k,
                "LAR": own.local_alignment_rate,
                "GAR": own.global_alignment_rate,
                "AUC": own.literal_auc,
            },
        )
    yield "65 pairs of nouns, similar as people say (RG-65)", {"Spearman's rho": quality.word_similarity}
