# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Result of looking into the embeddings of one embedder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keytok_haystack.alignment_measures import Alignment
from keytok_haystack.utils.files import rounded


@dataclass(frozen=True)
class Token:
    """
    Token of a text or of a component.

    :param token: Its characters, with white space made visible where the head is read id by id.
    :param weight: Its logit or weight.
    :param literal: Whether the text contains it.
    """

    token: str
    weight: float
    literal: bool = False


@dataclass(frozen=True)
class AdjustmentMeasures:
    """
    Measures of embeddings that have been adjusted in one way.

    :param name: Name of the adjustment.
    :param alignment: Alignment of the adjusted embeddings with the tokens of their texts.
    :param content_alignment: Alignment among content tokens alone; an adjustment is meant to suppress the others.
    :param classes: Share of each class of tokens among the 50 strongest tokens of a sample of texts.
    :param dense: nDCG@10 of cosine similarities; None without judged queries.
    :param key_tokens: nDCG@10 of key tokens, without literal tokens of queries or documents; None without judged
        queries.
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
    Principal component of the embeddings, with what it contributes to the logits of the texts' strongest tokens.

    The contribution of a component `u` to a logit is what the logit loses when `(h . u) u` is subtracted from the
    embedding `h`: for a token `e` of a linear head, `(h . u)(e . u)`.

    :param number: Its rank by explained energy, from 1.
    :param explained_energy: Its share of the embeddings' squared norms.
    :param constancy: Mean of the embeddings' coefficients `h . u` in units of their root mean square: near 1, all texts
        share the component alike; near 0, it tells them apart.
    :param tokens: Tokens that the component makes more likely.
    :param opposite: Tokens that the opposite direction makes more likely.
    :param contribution: Its contribution to the logits of each text's 50 strongest tokens, as a share of these logits;
        the contributions of all components sum to 1 if the head is linear.
    :param classes: Share of each class of tokens in its contribution to the 50 tokens of each text that it contributes
        most to.
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
    """Text with its strongest tokens before and after the first principal component is removed."""

    text: str
    before: Sequence[Token]
    after: Sequence[Token]


@dataclass(frozen=True)
class BackboneChange:
    """
    Difference between embeddings and the backbone's of the same texts, on each of the backbone's components.

    :param energy: Share of the squared differences on each component; the components that are not listed have the rest.
    :param variation: Mean difference along each component, in units of the root mean square of the norms of the
        backbone's embeddings (section 4 of the paper).
    :param explained_energy: Share of each component in the energy of the backbone's embeddings.
    """

    energy: Sequence[float]
    variation: Sequence[float]
    explained_energy: Sequence[float]


@dataclass(frozen=True)
class InstructedText:
    """Text with its key tokens under each instruction; the first instruction is empty."""

    text: str
    tokens: Mapping[str, Sequence[Token]]


@dataclass(frozen=True)
class Pair:
    """
    Similarity of two texts, explained by their key tokens.

    :param a: One text.
    :param b: The other text.
    :param cosine: Cosine of their embeddings.
    :param adjusted_cosine: Cosine of their embeddings without the first principal component.
    :param key_token_cosine: Cosine of their key tokens.
    :param shared: Key tokens of both texts with their shares of the score, which sum to 1 over all shared tokens;
        `literal` are those that both texts contain. Literal tokens make texts similar, the others make them related.
    :param literal_share: Share of the score that comes from tokens that both texts contain.
    :param only_a: Strongest key tokens that only `a` has.
    :param only_b: Strongest key tokens that only `b` has.
    """

    a: str
    b: str
    cosine: float
    adjusted_cosine: float
    key_token_cosine: float
    shared: Sequence[Token]
    literal_share: float
    only_a: Sequence[Token]
    only_b: Sequence[Token]


@dataclass(frozen=True)
class AlignmentReport:
    """
    Result of looking into an embedder's embeddings; its fields are the keys of the JSON that `keytok align` writes.

    :param embedder: Name of the embedder.
    :param data: Name of the file or folder with the texts.
    :param head: Kind of decoder.
    :param ids: Whether components and samples are read by the head's rows for token ids, which include white space and
        punctuation, or by the features used in retrieval, which do not.
    :param dimension: Dimension of the embeddings.
    :param texts: Number of texts.
    :param queries: Number of judged queries; 0 if retrieval is not measured.
    :param components: Leading principal components.
    :param methods: Measures of each way to adjust embeddings; the first leaves them as they are.
    :param strengths: Measures after the removal of different shares of the first principal component (`STRENGTHS`).
    :param samples: Texts with their strongest tokens.
    :param pairs: Pairs of texts with their similarity explained.
    :param instructions: Texts under different instructions; empty without instructions.
    :param change: Difference from the backbone; None without one.
    """

    embedder: str
    data: str
    head: str
    ids: bool
    dimension: int
    texts: int
    queries: int
    components: Sequence[Component]
    methods: Sequence[AdjustmentMeasures]
    strengths: Sequence[AdjustmentMeasures]
    samples: Sequence[Sample]
    pairs: Sequence[Pair]
    instructions: Sequence[InstructedText]
    change: BackboneChange | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, with numbers rounded to 6 significant digits."""
        data: dict[str, Any] = rounded(asdict(self))
        return data
