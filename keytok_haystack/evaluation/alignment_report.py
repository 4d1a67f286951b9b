# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What is inside the embeddings of one embedder: how they align with tokens, and what each component contributes."""

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS
from numpy.typing import NDArray
from tqdm import tqdm

from keytok_haystack.alignment import Alignment, alignments_among
from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.decoders import calibrate
from keytok_haystack.embedding_space import Moments, Preparation, Spectrum, embed_filter
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.experiment import decoder_name, rounded
from keytok_haystack.evaluation.measures import measure_run
from keytok_haystack.evaluation.systems import ranking
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rows import top_k
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.vocabulary import WHITE_SPACE, is_readable

CLASSES = ("stop words", "punctuation", "content", "special")
HIT_AT = 10
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
N_COMPONENTS = 8
SHOWN = 12
"""How many tokens of a text or a component are shown."""
_STRONGEST = 50
_SCALED, _CONTRIBUTING, _SAMPLES, _PAIRS = 400, 200, 6, 3
_SPECIAL = re.compile(r"[<\[]\S+[>\]]")

Adjust = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Token:
    """
    A token of a text or of a component.

    :param token: Its characters, white space made visible where the head is read id by id.
    :param weight: Its logit or weight.
    :param own: Whether the text contains it.
    """

    token: str
    weight: float
    own: bool = False


@dataclass(frozen=True)
class Measured:
    """
    What is measured of embeddings that have been adjusted in one way.

    :param name: The way.
    :param alignment: Their alignment with the tokens of their texts.
    :param content_alignment: The same among content tokens alone: of the others embeddings are meant to be rid.
    :param classes: Which share of the 50 strongest tokens of some texts are of each class.
    :param dense: nDCG@10 of their cosine similarities, if there are judged queries.
    :param key_tokens: nDCG@10 of their key tokens alone: no literal tokens, neither of queries nor of documents.
    """

    name: str
    alignment: Alignment
    content_alignment: Alignment
    classes: Mapping[str, float]
    dense: float | None = None
    key_tokens: float | None = None


@dataclass(frozen=True)
class Component:
    """
    A principal component of the embeddings, and what it contributes to the logits of the texts' strongest tokens.

    A component `u` contributes to a logit of a text what the logit loses if `(h . u) u` is taken out of its embedding
    `h`: for a token `e` of a linear head `(h . u)(e . u)`.

    :param number: 1 for the strongest.
    :param explained_energy: Its share of the embeddings' squared norms.
    :param constancy: The mean of the embeddings' coefficients `h . u` in units of their root mean square: near 1, all
        texts have it alike; near 0, it tells them apart.
    :param tokens: What the head reads in it: the tokens that it makes likelier.
    :param opposite: The tokens of the other direction.
    :param contribution: What it contributes to the logits of each text's 50 strongest tokens, as a share of these
        logits; those of all components sum to 1 if the head is linear.
    :param classes: Which share of what it contributes falls on each class of tokens: of each text, the 50 tokens that
        it contributes most to.
    """

    number: int
    explained_energy: float
    constancy: float
    tokens: Sequence[Token]
    opposite: Sequence[Token]
    contribution: float
    classes: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """A text, and its strongest tokens before and after the first principal component is removed."""

    text: str
    before: Sequence[Token]
    after: Sequence[Token]


@dataclass(frozen=True)
class Change:
    """
    How embeddings differ from the backbone's of the same texts, on each of the backbone's components.

    :param energy: For each component, the share of the squared differences that lies on it; the components that are not
        listed have the rest.
    :param variation: For each component, the mean difference along it, in units of the root mean square of the norms of
        the backbone's embeddings (section 4 of the paper).
    :param explained_energy: For each component, its share of the energy of the backbone's embeddings.
    """

    energy: Sequence[float]
    variation: Sequence[float]
    explained_energy: Sequence[float]


@dataclass(frozen=True)
class Instructed:
    """A text, and its key tokens under each instruction; the first one is empty."""

    text: str
    tokens: Mapping[str, Sequence[Token]]


@dataclass(frozen=True)
class Pair:
    """
    Why two texts are similar, by their key tokens.

    :param a: One text.
    :param b: The other one.
    :param cosine: Of their embeddings, as they are.
    :param adjusted_cosine: Of their embeddings without the first principal component.
    :param key_token_cosine: Of their key tokens.
    :param shared: Key tokens of both and their shares of the score, which sum to 1 over all that they share; `own` are
        those that both texts contain. These make texts similar, the others related.
    :param own_share: How much of the score comes from tokens that both texts contain.
    :param only_a: The strongest key tokens that only `a` has.
    :param only_b: The strongest key tokens that only `b` has.
    """

    a: str
    b: str
    cosine: float
    adjusted_cosine: float
    key_token_cosine: float
    shared: Sequence[Token]
    own_share: float
    only_a: Sequence[Token]
    only_b: Sequence[Token]


@dataclass(frozen=True)
class AlignmentReport:
    """
    What is inside an embedder's embeddings; its fields are the keys of the JSON that `keytok align` writes.

    :param embedder: The embedder.
    :param data: Where the texts come from.
    :param head: What decodes the embeddings.
    :param ids: Whether components and samples are read by the head's rows for token ids, white space and punctuation
        included; if not, by the features that retrieval uses, which have neither.
    :param dimension: The dimension of the embeddings.
    :param texts: How many texts there are.
    :param queries: How many judged queries there are; 0 where retrieval is not measured.
    :param components: The leading principal components.
    :param methods: Ways to adjust embeddings; the first one is not to.
    :param strengths: Shares of the first principal component that are taken out (`STRENGTHS`).
    :param samples: Texts with their strongest tokens.
    :param pairs: Pairs of texts.
    :param instructions: Texts under instructions, if there were any.
    :param change: The difference from the backbone, if there was one.
    """

    embedder: str
    data: str
    head: str
    ids: bool
    dimension: int
    texts: int
    queries: int
    components: Sequence[Component]
    methods: Sequence[Measured]
    strengths: Sequence[Measured]
    samples: Sequence[Sample]
    pairs: Sequence[Pair]
    instructions: Sequence[Instructed]
    change: Change | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, numbers rounded to 6 significant digits."""
        data: dict[str, Any] = rounded(asdict(self))
        return data


@dataclass(frozen=True, eq=False)
class Subject:
    """
    What a report is about.

    :param embedder: The embedder's name.
    :param data: Where the texts come from.
    :param texts: `n` texts.
    :param embeddings: Their embeddings, shape `(n, d)`.
    :param head: What decodes them.
    :param ids: The same head id by id (a vocabulary that is not folded), if it is linear and at hand.
    :param collection: The test collection whose documents are the texts, if it is one.
    :param queries: The embeddings of its queries.
    :param backbone: The backbone's embeddings of the texts, shape `(n, d)`.
    :param instructed: Texts and their embeddings under each instruction, "" among them.
    :param pairs: Pairs of texts and of their embeddings, shape `(2, d)`. If there are none, near texts are chosen.
    """

    embedder: str
    data: str
    texts: Sequence[str]
    embeddings: NDArray[np.float32]
    head: KeyTokenModel
    ids: KeyTokenModel | None = None
    collection: Collection | None = None
    queries: NDArray[np.float32] | None = None
    backbone: NDArray[np.float32] | None = None
    instructed: Mapping[str, tuple[Sequence[str], NDArray[np.float32]]] = field(default_factory=dict)
    pairs: Sequence[tuple[tuple[str, str], NDArray[np.float32]]] = ()


def report_alignment(subject: Subject, *, progress_bar: bool = False) -> AlignmentReport:
    """
    Look into embeddings: measure, decode and compare.

    :param progress_bar: Whether to show a progress bar.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: There are not as many texts as embeddings, or no text has a token that the head knows.
    """
    model = subject.head
    if model.spectrum is None:
        model = calibrate(model, subject.embeddings, subject.texts, embedder=subject.embedder)
    subject = replace(subject, head=_scaling(subject.head), ids=None if subject.ids is None else _scaling(subject.ids))
    head, shown = subject.head, subject.ids or subject.head
    embeddings = check_embeddings(subject.embeddings, head.dimension)
    spectrum = Spectrum.from_embeddings(embeddings)
    measure = _Measure(subject, shown)
    removal = spectrum.removal()
    rows = evenly(len(embeddings), _SAMPLES)
    ways = methods(spectrum, shown, embeddings)
    shares: dict[str, Adjust] = {f"{share:g}": partial(spectrum.adjust, strength=share) for share in STRENGTHS}
    shares |= {"0": ways["nothing"], "1": ways["remove PC1"]}
    todo = {adjust: name for name, adjust in (shares | ways).items()}
    progress = tqdm(todo.items(), desc="Measuring", disable=not progress_bar, leave=False)
    measured = {adjust: measure(name, adjust) for adjust, name in progress}
    return AlignmentReport(
        embedder=subject.embedder,
        data=subject.data,
        head=decoder_name(head),
        ids=subject.ids is not None,
        dimension=head.dimension,
        texts=len(embeddings),
        queries=0 if subject.collection is None else len(subject.collection.queries),
        components=components(shown, embeddings[evenly(len(embeddings), _CONTRIBUTING)], spectrum),
        methods=[measured[adjust] for adjust in ways.values()],
        strengths=[replace(measured[adjust], name=share) for share, adjust in shares.items()],
        samples=[
            Sample(subject.texts[row], *(strongest_tokens(shown, x[row], subject.texts[row]) for x in both))
            for both in [(embeddings, removal.adjusted(embeddings))]
            for row in rows
        ],
        pairs=[explain_pair(model, texts, x) for texts, x in subject.pairs or near_pairs(subject.texts, embeddings)],
        instructions=_instructed(model, subject.instructed),
        change=None if subject.backbone is None else change(embeddings, subject.backbone),
    )


def evenly(n: int, size: int) -> NDArray[np.int64]:
    """Return at most `size` of `n` positions, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, size)).astype(np.int64))


def token_class(token: str) -> str:
    """Return which of `CLASSES` a token is of; English stop words are those of NLTK's list."""
    surface = _surface(token)
    if _SPECIAL.fullmatch(surface):
        return "special"
    if surface in STOPWORDS_EN_PLUS:
        return "stop words"
    return "content" if is_readable(surface) else "punctuation"


def _scaling(model: KeyTokenModel) -> KeyTokenModel:
    """
    Have embeddings scaled to the length that the head is for, whatever that of the embedder's is.

    A head that was calibrated is read as it is: what is done to embeddings is what is compared. A decoder that was
    fitted knows only embeddings prepared as for its fitting.
    """
    own = model.decoder.preparation
    preparation = replace(own, normalize=True) if model.source == "fit" else Preparation(transform=own.transform)
    return replace(model, decoder=TokenDecoder(model.decoder.weight, preparation))


def unprepared(model: KeyTokenModel) -> TokenDecoder:
    """
    Return a model's decoder without what it does to embeddings, so that a linear one is a matrix product.

    Before the transform of a masked-language-model head embeddings still have to be scaled.
    """
    transform = model.decoder.preparation.transform
    return TokenDecoder(model.decoder.weight, Preparation(normalize=transform is not None, transform=transform))


def methods(spectrum: Spectrum, head: KeyTokenModel, embeddings: NDArray[np.float32]) -> dict[str, Adjust]:
    """Return ways to adjust embeddings by name; EmbedFilter is one of them if the head is linear."""
    removal = spectrum.removal()
    few = min(3, len(spectrum.components))
    centre = replace(removal, mean=removal(embeddings).mean(axis=0))
    ways: dict[str, Adjust] = {
        "nothing": lambda x: x,
        "remove PC1": removal.adjusted,
        f"remove PC1 to PC{few}": spectrum.removal(few).adjusted,
        "shift along PC1": spectrum.shift().adjusted,
        "remove PC1 and the mean": centre,
    }
    if head.decoder.preparation.transform is None and head.dimension > 1:
        ways["EmbedFilter, half kept"] = embed_filter(head.decoder.weight).adjusted
    return ways


def components(head: KeyTokenModel, embeddings: NDArray[np.float32], spectrum: Spectrum) -> list[Component]:
    """
    Return what a head reads in the leading components, and what these contribute to texts' strongest tokens.

    :param embeddings: Of some texts, shape `(n, d)`.
    :param spectrum: Of these embeddings, or of more.
    """
    decoder, classes = unprepared(head), _class_of(head)
    logits = decoder.logits(embeddings)
    top = np.argpartition(-logits, min(_STRONGEST, len(decoder)) - 1, axis=1)[:, :_STRONGEST]
    strongest = np.take_along_axis(logits, top, axis=1).sum()
    found = []
    for number, (direction, energy) in enumerate(
        zip(spectrum.components[:N_COMPONENTS], spectrum.explained_energy, strict=False), start=1
    ):
        coefficients = embeddings @ direction
        size = float(np.sqrt(np.square(coefficients).mean())) or 1.0
        without = embeddings - np.outer(coefficients, direction).astype(np.float32)
        contributed = logits - decoder.logits(without)
        raised = top_k(contributed, _STRONGEST)
        ends = decoder.logits(np.stack([direction, -direction]) * np.float32(size))
        found.append(
            Component(
                number=number,
                explained_energy=float(energy),
                constancy=float(abs(coefficients.mean()) / size),
                tokens=_tokens(head, ends[0]),
                opposite=_tokens(head, ends[1]),
                contribution=float(np.take_along_axis(contributed, top, axis=1).sum() / strongest),
                classes=_shares(np.bincount(classes[raised.indices], raised.data, len(CLASSES))),
            )
        )
    return found


def strongest_tokens(head: KeyTokenModel, embedding: NDArray[np.float32], text: str) -> list[Token]:
    """Return the strongest tokens of one embedding, shape `(d,)`, and whether the text contains them."""
    return _tokens(head, head.decoder.logits(embedding[None])[0], _own(head, text))


def change(embeddings: NDArray[np.float32], backbone: NDArray[np.float32]) -> Change:
    """
    Compare embeddings with the backbone's of the same texts (section 4 of the paper).

    The lengths of embeddings are not compared: some embedders scale theirs to 1. Both are scaled to a root mean square
    of 1.

    :param embeddings: Shape `(n, d)`.
    :param backbone: Shape `(n, d)`.
    :raises EmbeddingError: They are of different dimensions.
    :raises ValueError: There are not as many of one as of the other, or they are the same.
    """
    after, before = (_scaled(check_embeddings(x, embeddings.shape[1])) for x in (embeddings, backbone))
    if len(after) != len(before):
        msg = f"There are {len(after)} embeddings, but {len(before)} of the backbone."
        raise ValueError(msg)
    spectrum = Spectrum.from_embeddings(before, n_components=_STRONGEST)
    moments = Moments(after.shape[1])
    moments.add(after - before)
    total = np.trace(moments.second_moment)
    if total <= 1e-10 * len(after):
        msg = "The embeddings are the backbone's own: name the model that the embedder was made from."
        raise ValueError(msg)
    axes = spectrum.components.astype(np.float64)
    energy = np.einsum("kd,de,ke->k", axes, moments.second_moment, axes) / total
    return Change(energy.tolist(), (axes @ moments.mean).tolist(), spectrum.explained_energy.astype(float).tolist())


def explain_pair(model: KeyTokenModel, texts: tuple[str, str], embeddings: NDArray[np.float32]) -> Pair:
    """
    Explain the similarity of two texts by the key tokens of both, read as documents without their own tokens.

    :param model: A calibrated or fitted model.
    :param embeddings: Shape `(2, d)`.
    """
    a, b = model.encode_documents(embeddings).toarray()
    products = a * b
    score = float(products.sum())
    own_a, own_b = (_own(model, text) for text in texts)
    in_both = [i for i in np.flatnonzero(products) if _surface(model.vocabulary.features[i]) in own_a & own_b]
    adjusted = embeddings if model.spectrum is None else model.spectrum.adjust(embeddings)
    return Pair(
        *texts,
        cosine=_cosine(*embeddings),
        adjusted_cosine=_cosine(*adjusted),
        key_token_cosine=_cosine(a, b),
        shared=_tokens(model, products / (score or 1.0), own_a & own_b),
        own_share=float(products[in_both].sum() / (score or 1.0)),
        only_a=_tokens(model, np.where(b > 0, 0, a), own_a),
        only_b=_tokens(model, np.where(a > 0, 0, b), own_b),
    )


def near_pairs(
    texts: Sequence[str], embeddings: NDArray[np.float32]
) -> list[tuple[tuple[str, str], NDArray[np.float32]]]:
    """Choose pairs of different texts that are near each other: a few texts, evenly drawn, and the nearest of each."""
    centred = Preparation()(embeddings)
    centred = centred - centred.mean(axis=0)
    chosen: dict[frozenset[int], tuple[int, int]] = {}
    for row in evenly(len(texts), _PAIRS).tolist():
        similarities = centred @ centred[row]
        similarities[[text == texts[row] for text in texts]] = -np.inf
        other = int(similarities.argmax())
        if np.isfinite(similarities[other]):
            chosen.setdefault(frozenset((row, other)), (row, other))
    return [((texts[i], texts[j]), embeddings[[i, j]]) for i, j in chosen.values()]


class _Measure:
    """Measures embeddings that have been adjusted: their alignment, and what they retrieve."""

    def __init__(self, subject: Subject, shown: KeyTokenModel) -> None:
        self._subject, self._shown = subject, shown
        self._rows = evenly(len(subject.texts), _SCALED)
        self._classes = _class_of(shown)
        decoded = _class_of(subject.head)[: len(subject.head.decoder)]
        self._subsets = [np.arange(len(decoded)), np.flatnonzero(decoded == CLASSES.index("content"))]

    def __call__(self, name: str, adjust: Adjust) -> Measured:
        subject = self._subject
        documents = adjust(subject.embeddings)
        some, head = documents[self._rows], subject.head
        top = self._shown.decoder.top_k(some, _STRONGEST)
        everything, content = alignments_among(
            head.decoder, head.vocabulary, documents, subject.texts, self._subsets, HIT_AT
        )
        measured = Measured(
            name=name,
            alignment=everything,
            content_alignment=content,
            classes=_shares(np.bincount(self._classes[top.indices], minlength=len(CLASSES))),
        )
        if subject.collection is None or subject.queries is None:
            return measured
        queries, model = adjust(subject.queries), head.scaled_to(some)
        similarities = Preparation()(queries) @ Preparation()(documents).T
        shared = (model.encode_queries(queries) @ model.encode_documents(documents).T).toarray()
        return replace(
            measured, dense=ndcg(subject.collection, similarities), key_tokens=ndcg(subject.collection, shared)
        )


def ndcg(collection: Collection, scores: NDArray[np.floating]) -> float:
    """Return the mean nDCG@10 of each query's scores of all documents, shape `(queries, documents)`; 0 is not found."""
    identifiers = list(collection.documents)
    run = {
        query: [(identifiers[i], float(row[i])) for i in ranking(row)]
        for query, row in zip(collection.queries, scores, strict=True)
    }
    return measure_run(collection, run)["nDCG@10"]


def _instructed(
    model: KeyTokenModel, instructed: Mapping[str, tuple[Sequence[str], NDArray[np.float32]]]
) -> list[Instructed]:
    """Return the key tokens of the same texts under each instruction."""
    columns = {
        instruction: [strongest_tokens(model, row, text) for row, text in zip(embeddings, texts, strict=True)]
        for instruction, (texts, embeddings) in instructed.items()
    }
    texts = next(iter(instructed.values()))[0] if instructed else []
    return [Instructed(text, {name: column[i] for name, column in columns.items()}) for i, text in enumerate(texts)]


def _tokens(head: KeyTokenModel, values: NDArray[np.floating], own: AbstractSet[str] = frozenset()) -> list[Token]:
    """Return the features with the largest positive values, shape `(V,)`, strongest first."""
    order = [i for i in np.argsort(-values, kind="stable")[:SHOWN].tolist() if values[i] > 0]
    features = head.vocabulary.features
    return [Token(features[i], float(values[i]), _surface(features[i]) in own) for i in order]


def _own(head: KeyTokenModel, text: str) -> set[str]:
    """Return the surface forms of a text's own tokens."""
    return {_surface(head.vocabulary.features[i]) for i in head.vocabulary.literal_counts([text]).indices}


def _surface(token: str) -> str:
    """Return a token without the white space around it and without case, as a folded vocabulary has it."""
    return token.strip(WHITE_SPACE).casefold()


def _class_of(head: KeyTokenModel) -> NDArray[np.int64]:
    """Return the position in `CLASSES` of each feature, shape `(V,)`."""
    return np.array([CLASSES.index(token_class(feature)) for feature in head.vocabulary.features])


def _shares(amounts: NDArray[np.number]) -> dict[str, float]:
    total = amounts.sum() or 1.0
    return {name: float(amount / total) for name, amount in zip(CLASSES, amounts, strict=True)}


def _scaled(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale embeddings, all alike, to a root mean square norm of 1."""
    size = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64).mean())
    scaled: NDArray[np.float32] = (embeddings / size).astype(np.float32)
    return scaled


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))
