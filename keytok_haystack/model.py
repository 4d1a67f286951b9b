# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A key-token model: everything that turns an embedding into weighted tokens."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from keytok_haystack.confidence import Chance
from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import HeadTransform, Preparation, Spectrum
from keytok_haystack.model_folder import (
    FORMAT_VERSION,
    FolderContent,
    ModelFolderError,
    damaged,
    read_model_folder,
    write_model_folder,
)
from keytok_haystack.sparse_vectors.rank_features import escape_feature, rounded_weights, shortest_decimals
from keytok_haystack.sparse_vectors.rows import (
    SparseRow,
    join_rows,
    row_maxima,
    rows_to_dicts,
    scale_columns,
    split_rows,
)
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.blocks import row_blocks
from keytok_haystack.utils.checks import EmbeddingError, check_embeddings, check_not_one_string, check_same_number
from keytok_haystack.vocabulary import TokenizerVocabulary, Vocabulary, WordVocabulary
from keytok_haystack.weighting import DocumentStatistics, Weighting, add_literals, drop_poor_gain, root_frequencies

_LEAST_LITERAL_AUC, _LEAST_COVERAGE = 0.6, 0.5
"""Bounds below which a corpus, or its embeddings, are not understood."""
_TRANSFORM = "transform."  # begins the names of its arrays
_STATISTICS = "statistics."
_VOCABULARIES: dict[str, type[Vocabulary]] = {kind.kind: kind for kind in (WordVocabulary, TokenizerVocabulary)}
_OF_QUERIES = ("m_query", "gain_share")
"""Settings that only queries depend on."""
_NUMBER = (int, float)
_SETTINGS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("fingerprint", "source"), (str,)),
    "embedder": (str, NoneType),
    "comprehension": (dict, NoneType),
    **dict.fromkeys(("fit_seconds", "refine_seconds"), (*_NUMBER, NoneType)),
    **dict.fromkeys(("refined", "normalize"), (bool,)),
    "dimension": (int,),
    **{each.name: (int,) if each.type is int else _NUMBER for each in fields(Weighting)},
}
"""Types of the settings in a model folder."""
_COMPREHENSION = {"coverage": _NUMBER, "literal_auc": _NUMBER}
_TRANSFORM_SETTINGS: dict[str, tuple[type, ...]] = {"activation": (str,), "epsilon": _NUMBER, "norm": _NUMBER}
_NO_TOKENS: SparseRow = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True)
class Comprehension:
    """
    How well a fitted decoder reads the embeddings of its texts, on a sample of them.

    :param coverage: Share of the words of the texts, each as often as it occurs, that the decoder has a row for.
    :param literal_auc: Probability that a word of a text has a larger logit than another word, if the text is left out
        of fitting: 0.5 for vectors that have nothing to do with the texts.
    """

    coverage: float
    literal_auc: float

    @property
    def warning(self) -> str | None:
        """What seems to be wrong with the texts or the embeddings, and the remedy, in one sentence; None if nothing."""
        if self.literal_auc < _LEAST_LITERAL_AUC:
            return (
                "The embeddings hardly tell which words are in their texts (held-out AUC "
                f"{self.literal_auc:.2f}; 0.75 is usual, 0.5 is chance): fit to some hundred texts at least, and check "
                "that each vector is that of its text, and that the embedder knows the language."
            )
        if self.coverage < _LEAST_COVERAGE:
            return (
                f"Only {self.coverage:.0%} of the words in the texts can be read from embeddings; the others are rare, "
                "or numbers: fit to more texts, and check that the texts are in words."
            )
        return None


@dataclass(frozen=True, eq=False)
class KeyTokenModel:
    """
    A model that turns embeddings into key tokens: sparse weights over the features of a vocabulary.

    Documents and queries are weighted differently. A document keeps the strongest of the tokens that its embedding is
    aligned with and, if its text is known, its literal ones; they are dampened, and scaled so that the strongest weighs
    1 in the mean over the fitting corpus. A query has its aligned tokens and its literal ones, scaled so that the
    strongest weighs 1. The score of a document is the dot product.

    :param vocabulary: The `V` features: words of a corpus, or tokens of a language model. Those that the decoder has
        rows for come first; a text is found by the others only if they are among its literal tokens. To words that a
        vocabulary has not seen, `TokenRows` give columns behind its features.
    :param decoder: Decoder from embeddings of dimension `d` to logits of the first `v <= V` features.
    :param weighting: Rules by which logits become weights.
    :param source: Source of the decoder: "fit", "language-model", "masked-language-model" or "word-embeddings".
    :param embedder: Name of the embedding model that this model reads, if known.
    :param idf: Shape `(V + 1,)`, the inverse document frequency of each feature in the fitting corpus (`feature_idf`),
        if there was one; the last is that of all words that the vocabulary has not seen.
    :param statistics: Statistics of the key tokens of documents, if known; without them, queries keep all tokens.
    :param chance: Strengths of random embeddings, if known; without them, no confidence is known.
    :param spectrum: Spectrum of the embeddings, if known; `PC1Adjuster` needs it.
    :param comprehension: How well the decoder, before any refinement, reads the embeddings that it was fitted to.
    :param refined: Whether the decoder has been refined (`refine`).
    :param fit_seconds: Duration of fitting or calibration in seconds, if it was measured.
    :param refine_seconds: Duration of refinement in seconds, if there was one.
    :raises ValueError: The parts do not fit together.
    """

    vocabulary: Vocabulary
    decoder: TokenDecoder
    weighting: Weighting = field(default_factory=Weighting)
    source: str = "fit"
    embedder: str | None = None
    idf: NDArray[np.float32] | None = None
    statistics: DocumentStatistics | None = None
    chance: Chance | None = None
    spectrum: Spectrum | None = None
    comprehension: Comprehension | None = None
    refined: bool = False
    fit_seconds: float | None = None
    refine_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if len(self.vocabulary) < len(self.decoder):
            msg = f"The vocabulary has only {len(self.vocabulary)} features, but the decoder {len(self.decoder)}."
            raise ValueError(msg)
        for name, array in (("idf", self.idf), *(vars(self.statistics).items() if self.statistics else ())):
            if array is not None and array.shape != (len(self.vocabulary) + 1,):
                msg = (
                    f"The {name} has the shape {array.shape}, but {len(self.vocabulary)} features, and one entry for "
                    f"all unseen words, need ({len(self.vocabulary) + 1},)."
                )
                raise ValueError(msg)
        if self.spectrum is not None and self.spectrum.dimension != self.dimension:
            msg = f"The spectrum has {self.spectrum.dimension} dimensions, but the decoder {self.dimension}."
            raise ValueError(msg)

    @property
    def dimension(self) -> int:
        """Dimension `d` of the embeddings."""
        return self.decoder.dimension

    def encode_documents(
        self, embeddings: ArrayLike, texts: Iterable[str] | None = None, top_k: int | None = None
    ) -> TokenRows:
        """
        Turn documents into the weights of their key tokens.

        :param embeddings: Shape `(n, d)`, as the embedder returns them or adjusted by `PC1Adjuster`.
        :param texts: The `n` texts, whose literal tokens join the aligned ones: each adds `literal_factor * idf *
            sqrt(tf / length)` to its logit, before the strongest are chosen. None reads the embeddings alone.
        :param top_k: Number of tokens to keep; the weighting's `k_document` by default.
        :returns: `n` rows, float32, with their confidences, if `chance` is known. A row is empty if no logit is
            positive.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings.
        """
        k = self.weighting.k_document if top_k is None else top_k
        counts = None if texts is None else self.vocabulary.literal_counts(texts)
        decoded = self.decoder.decode(embeddings, k, None if counts is None else self.literal_logits(counts.rows))
        confidences = self._confidences(decoded.strengths)
        if counts is None:
            logits = self._widened(decoded.rows, len(self.vocabulary))
            return _checked(TokenRows(self.weighting.document_weights(logits), confidences=confidences))
        check_same_number(len(decoded.strengths), len(counts))
        logits = self._widened(decoded.rows, counts.rows.shape[1])
        return _checked(counts.with_rows(self.weighting.document_weights(logits), confidences))

    def _confidences(self, strengths: NDArray[np.float32]) -> NDArray[np.float32] | None:
        return None if self.chance is None else self.chance.confidences(strengths)

    def literal_logits(self, counts: csr_array) -> csr_array | None:
        """
        Return the share of documents' logits that comes from their literal tokens.

        :param counts: Shape `(n, V + u)`, literal counts.
        :returns: Shape `(n, V + u)`, or None if nothing is added: the share is 0, or no idf or scale has been fitted.
        """
        if self.idf is None or self.weighting.literal_factor == 0:
            return None
        return scale_columns(root_frequencies(counts), self.idf * np.float32(self.weighting.literal_factor))

    def encode_queries(
        self, embeddings: ArrayLike, texts: Iterable[str] | None = None, top_k: int | None = None
    ) -> TokenRows:
        """
        Turn query embeddings into the weights of their aligned and literal tokens.

        Tokens of poor gain are left out (`drop_poor_gain`). A text that asks for nothing, since it is empty or has no
        words but stop words, has no tokens, whatever its embedding decodes to.

        :param embeddings: Shape `(n, d)`.
        :param texts: The `n` texts of the queries; None leaves the literal tokens out.
        :param top_k: Number of aligned tokens to keep; the weighting's `m_query` by default, 0 for the literals alone.
        :returns: `n` rows, float32, the largest weight of each is 1, with their confidences, if `chance` is known.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings.
        """
        m = self.weighting.m_query if top_k is None else top_k
        aligned = self.decoder.strongest(embeddings, max(m, 1))
        strengths = np.array([logits.max(initial=0) for _, logits in aligned], dtype=np.float32)
        if m == 0:
            aligned = [_NO_TOKENS] * len(aligned)
        if texts is None:
            queries = [self._query(each, _NO_TOKENS) for each in aligned]
            rows = join_rows(queries, len(self.vocabulary))
            return _checked(TokenRows(rows, confidences=self._confidences(strengths)))
        check_not_one_string(texts)
        texts = list(texts)
        counts = self.vocabulary.literal_counts(texts)
        check_same_number(len(aligned), len(counts))
        queries = []
        for i, (text, literals) in enumerate(zip(texts, split_rows(counts.rows), strict=True)):
            if len(literals[0]) or self.vocabulary.may_lack_words_of(text):
                queries.append(self._query(aligned[i], literals))
            else:
                queries.append(_NO_TOKENS)
                strengths[i] = 0
        rows = join_rows(queries, counts.rows.shape[1])
        return _checked(TokenRows(rows, counts.unseen, self._confidences(strengths), counts.rows))

    def _query(self, aligned: SparseRow, literals: SparseRow) -> SparseRow:
        """Weigh the aligned tokens and the literal counts of a query."""
        query = add_literals(aligned, literals, self.idf)
        if self.statistics is not None:
            query = drop_poor_gain(query, self.statistics, self.weighting.gain_share)
        columns, weights = query
        return columns, weights / weights.max(initial=np.float32(np.finfo(np.float32).tiny))

    def _widened(self, rows: csr_array, width: int) -> csr_array:
        """Rows over the decoder's features as rows over more features."""
        return csr_array((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], width))

    def document_tokens(self, weights: TokenRows) -> list[dict[str, float]]:
        """
        Turn document weights into `{key: weight}`, strongest first.

        The weights are rounded (`rounded_weights`), and spelled as engines store them (`shortest_decimals`).
        """
        return self._named(weights, shortest_decimals(rounded_weights(weights.rows.data)))

    def query_tokens(self, weights: TokenRows) -> list[dict[str, float]]:
        """Turn query weights into `{key: weight}`, strongest first, rounded to 6 decimals."""
        return self._named(weights, weights.rows.data.astype(float).round(6))

    def literal_tokens(self, text: str) -> list[str]:
        """
        Return the literal tokens of a text as keys, each once.

        :raises TypeError: The text is not a string.
        :raises ValueError: It is not of whole characters.
        """
        return list(self.query_tokens(self.vocabulary.literal_counts([text]))[0])

    def _named(self, weights: TokenRows, data: NDArray[np.float64]) -> list[dict[str, float]]:
        unseen = [escape_feature(word) for word in weights.unseen]
        return rows_to_dicts(weights.rows, self.vocabulary.keys, unseen, entries=data)

    @cached_property
    def fingerprint(self) -> str:
        """
        Digest of all that document weights depend on: vocabulary, idf, decoder, preparation and document weighting.

        The vocabulary is represented by its features and by what its libraries make of sample texts (`identity`), so
        that a stemmer or tokenizer that behaves differently is noticed.

        Documents and queries must come from models of the same fingerprint; `m_query` and `gain_share` may change
        freely.
        """
        preparation = self.decoder.preparation
        digest = hashlib.sha256(f"keytok-haystack {FORMAT_VERSION}\n".encode())
        weighting = {name: value for name, value in asdict(self.weighting).items() if name not in _OF_QUERIES}
        digest.update(json.dumps([weighting, preparation.normalize], sort_keys=True).encode())
        digest.update(self.vocabulary.identity)
        for rows in row_blocks(self.decoder.weight):
            digest.update(np.ascontiguousarray(self.decoder.weight[rows], dtype=np.float16).data)
        for array in (preparation.mean, preparation.removed, preparation.shift, self.idf):
            digest.update(b"\0" if array is None else np.ascontiguousarray(array).data)
        if preparation.transform is not None:
            for array in preparation.transform.arrays.values():
                digest.update(np.ascontiguousarray(array).data)
            digest.update(json.dumps(preparation.transform.settings, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def with_weighting(self, **changes: Any) -> Self:
        """
        Return this model with changed settings of its `Weighting`.

        Scales and statistics stay as they were fitted: after a change of what documents depend on, `scaled_to` fits
        them again.
        """
        return replace(self, weighting=replace(self.weighting, **changes))

    def scaled_to(self, embeddings: ArrayLike, counts: csr_array | None = None, *, check_input: bool = True) -> Self:
        """
        Return this model with its scales, statistics and chance fitted to a sample of documents.

        :param embeddings: Shape `(n, d)`, a few thousand.
        :param counts: Shape `(n, V + u)`, literal counts of their texts; None leaves literal tokens out.
        :param check_input: Whether to check the embeddings; False for a float32 array that has been checked.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        """
        checked = check_embeddings(embeddings, self.dimension) if check_input else np.asarray(embeddings)
        unscaled = self.with_weighting(weight_scale=1.0, literal_scale=0.0)
        literals = None
        if counts is not None and counts.shape[0] and self.idf is not None:
            largest_logit = row_maxima(self.decoder.top_k(checked, 1, check_input=False)).mean()
            largest_literal = row_maxima(scale_columns(root_frequencies(counts), self.idf)).mean()
            if largest_literal > 0:
                unscaled = unscaled.with_weighting(literal_scale=largest_logit / largest_literal)
                literals = unscaled.literal_logits(counts)
        logits = self.decoder.top_k(checked, self.weighting.k_document, literals, check_input=False)
        largest = row_maxima(unscaled.weighting.document_weights(logits))
        mean = float(largest.mean()) if len(largest) else 0.0
        scaled = unscaled.with_weighting(weight_scale=mean if mean > 0 else 1.0)
        weights = scaled.weighting.document_weights(logits)
        return replace(
            scaled,
            statistics=DocumentStatistics.of(weights, len(self.vocabulary)),
            chance=Chance.of(self.decoder, checked) if len(checked) else None,
        )

    def save(self, path: str | Path) -> None:
        """
        Write the model as a folder, replacing a key-token model that is already there.

        The folder appears whole or not at all: it is written beside its place and moved there.

        :param path: Path of the folder; its parents are created.
        :raises FileExistsError: Something else than a key-token model is at the path.
        """
        preparation = self.decoder.preparation
        transform = preparation.transform
        config = {
            "fingerprint": self.fingerprint,
            "source": self.source,
            "embedder": None if self.embedder is None else str(self.embedder),
            "comprehension": None if self.comprehension is None else asdict(self.comprehension),
            "refined": self.refined,
            "fit_seconds": self.fit_seconds,
            "refine_seconds": self.refine_seconds,
            "dimension": self.dimension,
            "normalize": preparation.normalize,
            **({"transform": transform.settings} if transform else {}),
            **asdict(self.weighting),
        }
        arrays = {
            "weight": self.decoder.weight.astype(np.float16),
            "idf": self.idf,
            **({_STATISTICS + name: array for name, array in vars(self.statistics).items()} if self.statistics else {}),
            "chance": None if self.chance is None else self.chance.strengths,
            "mean": preparation.mean,
            "removed": preparation.removed,
            "shift": preparation.shift,
            **({_TRANSFORM + name: array for name, array in transform.arrays.items()} if transform else {}),
        }
        content = FolderContent(
            config,
            {"kind": self.vocabulary.kind, "features": self.vocabulary.features, **self.vocabulary.settings},
            {name: array for name, array in arrays.items() if array is not None},
            None if self.spectrum is None else vars(self.spectrum),
        )
        write_model_folder(Path(path), content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """
        Read a model from its folder. Nothing in the folder is ever executed.

        :param path: Path of the folder.
        :raises FileNotFoundError: There is no folder at the path.
        :raises ModelFolderError: The folder is not a key-token model, of another format version, or damaged.
        """
        path = Path(path)
        content = read_model_folder(path)
        try:
            model = cls._from_content(content)
            fingerprint = model.fingerprint
        except ValueError as error:
            raise damaged(path, error) from error
        except Exception as error:  # of many types, by what is wrong
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        if fingerprint != content.config["fingerprint"]:
            msg = (
                f"The content of the key-token model '{path}' does not match its fingerprint: it is damaged, or was "
                "made with versions of PyStemmer, regex or tokenizers that read words differently; make it again."
            )
            raise ModelFolderError(msg)
        return model

    @classmethod
    def _from_content(cls, content: FolderContent) -> Self:
        config, arrays, transform = content.config, content.decoder, None
        _check_settings(config, _SETTINGS)
        if "transform" in config:
            parts = {n.removeprefix(_TRANSFORM): array for n, array in arrays.items() if n.startswith(_TRANSFORM)}
            _check_settings(config["transform"], _TRANSFORM_SETTINGS)
            transform = HeadTransform(**config["transform"] | parts)
        preparation = Preparation(
            removed=arrays.get("removed"),
            shift=arrays.get("shift"),
            normalize=config["normalize"],
            mean=arrays.get("mean"),
            transform=transform,
        )
        decoder = TokenDecoder(arrays["weight"], preparation)
        if decoder.dimension != config["dimension"]:
            msg = f"the decoder has {decoder.dimension} dimensions, the configuration {config['dimension']}"
            raise ValueError(msg)
        settings = dict(content.vocabulary)
        kind, features = _VOCABULARIES[settings.pop("kind")], settings.pop("features")
        kind.check_features(features)
        if comprehension := config["comprehension"]:
            _check_settings(comprehension, _COMPREHENSION)
        statistics = {n.removeprefix(_STATISTICS): array for n, array in arrays.items() if n.startswith(_STATISTICS)}
        for name, array in (("idf", arrays.get("idf", np.zeros(1))), *statistics.items()):
            if (array < 0).any():
                msg = f"the {name} of a feature is negative"
                raise ValueError(msg)
        return cls(
            vocabulary=kind.from_settings(features, settings),
            decoder=decoder,
            weighting=Weighting(**{setting.name: config[setting.name] for setting in fields(Weighting)}),
            source=config["source"],
            embedder=config["embedder"],
            idf=arrays.get("idf"),
            statistics=DocumentStatistics(**statistics) if statistics else None,
            chance=Chance(arrays["chance"]) if "chance" in arrays else None,
            spectrum=None if content.spectrum is None else Spectrum(**content.spectrum),
            comprehension=Comprehension(**comprehension) if comprehension else None,
            refined=config["refined"],
            fit_seconds=config["fit_seconds"],
            refine_seconds=config["refine_seconds"],
        )


def _checked(weights: TokenRows) -> TokenRows:
    """Return weights, if all are finite."""
    if not np.isfinite(weights.rows.data).all():
        msg = "The key tokens have weights that float32 does not hold: the settings of the model are out of proportion."
        raise EmbeddingError(msg)
    return weights


def _check_settings(settings: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse settings of other types than are written, infinite numbers, and names that cannot be written."""
    for name, allowed in kinds.items():
        value = settings[name]
        is_sane = type(value) in allowed and (type(value) not in _NUMBER or np.isfinite(float(value)))
        if not is_sane or (isinstance(value, str) and value != value.encode(errors="replace").decode()):
            msg = f"the setting '{name}' cannot be {value!r}"
            raise ValueError(msg)


def loaded_model(model: KeyTokenModel | str | Path) -> KeyTokenModel:
    """Return a key-token model, loaded if it is given by the path of its folder (`KeyTokenModel.load`)."""
    return model if isinstance(model, KeyTokenModel) else KeyTokenModel.load(model)
