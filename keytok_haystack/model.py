# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A key-token model: everything that turns an embedding into weighted tokens."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from keytok_haystack.decoder import TokenDecoder, row_blocks
from keytok_haystack.embedding_space import HeadTransform, Preparation, Spectrum
from keytok_haystack.model_folder import (
    FORMAT_VERSION,
    FolderContent,
    ModelFolderError,
    damaged,
    read_model_folder,
    write_model_folder,
)
from keytok_haystack.sparse_vectors.rank_features import shortest_decimals
from keytok_haystack.sparse_vectors.rows import row_maxima, rows_to_dicts, scale_columns, scale_rows
from keytok_haystack.utils.checks import check_embeddings, check_same_number
from keytok_haystack.vocabulary import Vocabulary
from keytok_haystack.weighting import Weighting, add_literals, root_frequencies

_TRANSFORM = "transform."  # begins the names of its arrays
# settings that format 2 has and models no longer have, at the value that had no effect
_FORMER_SETTINGS = {"minimum_weight": 0.0}


@dataclass(frozen=True, eq=False)
class KeyTokenModel:
    """
    A model that turns embeddings into key tokens: sparse weights over the features of a vocabulary.

    Documents and queries are weighted differently. A document keeps the strongest of the tokens that its embedding is
    aligned with and, if its text is known, its literal ones; they are dampened, and scaled so that the strongest weighs
    1 in the mean over the fitting corpus. A query has its aligned tokens and its literal ones, scaled so that the
    strongest weighs 1. The score of a document is the dot product.

    :param vocabulary: The `V` features of a tokenizer. Those that the decoder has rows for come first; a text is found
        by the others only if they are among its literal tokens.
    :param decoder: Decoder from embeddings of dimension `d` to logits of the first `v <= V` features.
    :param weighting: Rules by which logits become weights.
    :param source: Source of the decoder: "fit", "language-model", "masked-language-model" or "word-embeddings".
    :param embedder: Name of the embedding model that this model reads, if known.
    :param idf: Shape `(V,)`, the inverse document frequency of each feature in the fitting corpus, if there was one.
    :param spectrum: Spectrum of the embeddings, if known; `PC1Adjuster` needs it.
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
    spectrum: Spectrum | None = None
    refined: bool = False
    fit_seconds: float | None = None
    refine_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if len(self.vocabulary) < len(self.decoder):
            msg = f"The vocabulary has only {len(self.vocabulary)} features, but the decoder {len(self.decoder)}."
            raise ValueError(msg)
        if self.idf is not None and self.idf.shape != (len(self.vocabulary),):
            msg = f"The idf has the shape {self.idf.shape}, but there are {len(self.vocabulary)} features."
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
    ) -> csr_array:
        """
        Turn documents into the weights of their key tokens.

        :param embeddings: Shape `(n, d)`, as the embedder returns them or adjusted by `PC1Adjuster`.
        :param texts: The `n` texts, whose literal tokens join the aligned ones: each adds `literal_factor * idf *
            sqrt(tf / length)` to its logit, before the strongest are chosen. None reads the embeddings alone.
        :param top_k: Number of tokens to keep; the weighting's `k_document` by default.
        :returns: Shape `(n, V)`, float32. A row is empty if no logit is positive.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings.
        """
        counts = None if texts is None else self.vocabulary.literal_counts(texts)
        literals = None if counts is None else self.literal_logits(counts)
        k = self.weighting.k_document if top_k is None else top_k
        logits = self._widened(self.decoder.top_k(embeddings, k, literals))
        if counts is not None:
            check_same_number(logits.shape[0], counts.shape[0])
        return self.weighting.document_weights(logits)

    def literal_logits(self, counts: csr_array) -> csr_array | None:
        """
        Return the share of documents' logits that comes from their literal tokens.

        :param counts: Shape `(n, V)`, literal counts.
        :returns: Shape `(n, V)`, or None if nothing is added: the share is 0, or no idf or scale has been fitted.
        """
        if self.idf is None or self.weighting.literal_factor == 0:
            return None
        return scale_columns(root_frequencies(counts), self.idf * np.float32(self.weighting.literal_factor))

    def encode_queries(
        self, embeddings: ArrayLike, texts: Iterable[str] | None = None, top_k: int | None = None
    ) -> csr_array:
        """
        Turn query embeddings into the weights of their aligned and literal tokens.

        :param embeddings: Shape `(n, d)`.
        :param texts: The `n` texts of the queries; None leaves the literal tokens out.
        :param top_k: Number of aligned tokens to keep; the weighting's `m_query` by default, 0 for the literals alone.
        :returns: Shape `(n, V)`, float32, the largest weight of each row is 1.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings.
        """
        m = self.weighting.m_query if top_k is None else top_k
        weights = self._widened(self.decoder.top_k(embeddings, max(m, 1)))
        if m == 0:
            weights = csr_array(weights.shape, dtype=np.float32)
        if texts is not None:
            counts = self.vocabulary.literal_counts(texts)
            check_same_number(weights.shape[0], counts.shape[0])
            weights = add_literals(weights, counts, self.idf)
        maxima = row_maxima(weights)
        return scale_rows(weights, 1 / np.where(maxima > 0, maxima, 1))

    def _widened(self, rows: csr_array) -> csr_array:
        """Rows over the decoder's features as rows over all features."""
        return csr_array((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], len(self.vocabulary)))

    def document_tokens(self, weights: csr_array) -> list[dict[str, float]]:
        """
        Turn document weights, shape `(n, V)`, into `{key: weight}`, strongest first.

        The weights are the shortest decimals that engines store as the same value (`shortest_decimals`).
        """
        stored = csr_array((shortest_decimals(weights.data), weights.indices, weights.indptr), shape=weights.shape)
        return rows_to_dicts(stored, self.vocabulary.keys)

    def query_tokens(self, weights: csr_array) -> list[dict[str, float]]:
        """Turn query weights, shape `(n, V)`, into `{key: weight}`, strongest first, rounded to 6 decimals."""
        rounded = csr_array((weights.data.astype(float).round(6), weights.indices, weights.indptr), shape=weights.shape)
        return rows_to_dicts(rounded, self.vocabulary.keys)

    @cached_property
    def fingerprint(self) -> str:
        """
        Digest of all that document weights depend on: vocabulary, idf, decoder, preparation and document weighting.

        The tokenizer's rules are represented by the tokens that they make of a sample of the vocabulary, since their
        spelling as JSON differs between versions of `tokenizers`.

        Documents and queries must come from models of the same fingerprint; `m_query` may change freely.
        """
        preparation = self.decoder.preparation
        digest = hashlib.sha256(f"keytok-haystack {FORMAT_VERSION}\n".encode())
        weighting = asdict(self.weighting) | _FORMER_SETTINGS
        del weighting["m_query"]
        settings = [self.vocabulary.features, weighting, preparation.normalize]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        weight, feature_of_id = self.decoder.weight, self.vocabulary.feature_of_id
        words = self.vocabulary.features[:: max(1, len(self.vocabulary) // 2000)]
        probe = self.vocabulary.literal_counts([" ".join(words), "-".join(words).upper(), "".join(words)])
        tokenization = np.concatenate([probe.indptr, probe.indices, probe.data]).astype(np.int64)
        for rows in row_blocks(weight):
            digest.update(np.ascontiguousarray(weight[rows], dtype=np.float16).data)
        for array in (preparation.mean, preparation.removed, self.idf, feature_of_id, tokenization):
            digest.update(b"\0" if array is None else np.ascontiguousarray(array).data)
        if preparation.shift is not None:
            digest.update(np.ascontiguousarray(preparation.shift).data)
        if preparation.transform is not None:
            for array in preparation.transform.arrays.values():
                digest.update(np.ascontiguousarray(array).data)
            digest.update(json.dumps(preparation.transform.settings, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def with_weighting(self, **changes: Any) -> Self:
        """
        Return this model with changed settings of its `Weighting`.

        The scales stay as they were fitted: after a change of the exponent, the normalization or the literal share,
        `scaled_to` makes the mean of the largest weight 1 again.
        """
        return replace(self, weighting=replace(self.weighting, **changes))

    def scaled_to(self, embeddings: ArrayLike, counts: csr_array | None = None, *, check_input: bool = True) -> Self:
        """
        Return this model with the scales of its document weighting fitted to a sample of documents.

        :param embeddings: Shape `(n, d)`, a few thousand.
        :param counts: Shape `(n, V)`, literal counts of their texts; None leaves literal tokens out.
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
        logits = self.decoder.top_k(checked, 1, literals, check_input=False)
        largest = row_maxima(unscaled.weighting.document_weights(logits))
        mean = float(largest.mean()) if len(largest) else 0.0
        return unscaled.with_weighting(weight_scale=mean if mean > 0 else 1.0)

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
            "refined": self.refined,
            "fit_seconds": self.fit_seconds,
            "refine_seconds": self.refine_seconds,
            "dimension": self.dimension,
            "normalize": preparation.normalize,
            **({"transform": transform.settings} if transform else {}),
            **asdict(self.weighting),
            **_FORMER_SETTINGS,
        }
        arrays = {
            "weight": self.decoder.weight.astype(np.float16),
            "features": np.frombuffer(json.dumps(self.vocabulary.features).encode(), dtype=np.uint8),
            "feature_of_id": self.vocabulary.feature_of_id,
            "idf": self.idf,
            "mean": preparation.mean,
            "removed": preparation.removed,
            "shift": preparation.shift,
            **({_TRANSFORM + name: array for name, array in transform.arrays.items()} if transform else {}),
        }
        content = FolderContent(
            config,
            self.vocabulary.tokenizer_json,
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
        if content.config.get("minimum_weight") or "query_mean" in content.decoder:
            msg = (
                f"The key-token model '{path}' has a minimum weight or a query mean, which this version of "
                "keytok-haystack does not know. Make it again."
            )
            raise ModelFolderError(msg)
        try:
            model = cls._from_content(content)
        except Exception as error:
            raise damaged(path, error) from error
        if model.fingerprint != content.config["fingerprint"]:
            msg = f"The key-token model '{path}' is damaged: its content does not match its fingerprint. Make it again."
            raise ModelFolderError(msg)
        return model

    @classmethod
    def _from_content(cls, content: FolderContent) -> Self:
        config, arrays, transform = content.config, content.decoder, None
        if "transform" in config:
            parts = {n.removeprefix(_TRANSFORM): array for n, array in arrays.items() if n.startswith(_TRANSFORM)}
            transform = HeadTransform(**config["transform"] | parts)
        removed = arrays.get("removed")
        preparation = Preparation(
            removed=None if removed is None else np.atleast_2d(removed),  # (d,) in models of earlier versions
            shift=arrays.get("shift"),
            normalize=config["normalize"],
            mean=arrays.get("mean"),
            transform=transform,
        )
        decoder = TokenDecoder(arrays["weight"], preparation)
        if decoder.dimension != config["dimension"]:
            msg = f"the decoder has {decoder.dimension} dimensions, the configuration {config['dimension']}"
            raise ValueError(msg)
        features: Sequence[str] = json.loads(arrays["features"].tobytes())
        return cls(
            vocabulary=Vocabulary(Tokenizer.from_str(content.tokenizer), features, arrays["feature_of_id"]),
            decoder=decoder,
            weighting=Weighting(**{setting.name: config[setting.name] for setting in fields(Weighting)}),
            source=config["source"],
            embedder=config["embedder"],
            idf=arrays.get("idf"),
            spectrum=None if content.spectrum is None else Spectrum(**content.spectrum),
            refined=config.get("refined", config["refine_seconds"] is not None),  # earlier versions have the time alone
            fit_seconds=config["fit_seconds"],
            refine_seconds=config["refine_seconds"],
        )


def loaded_model(model: KeyTokenModel | str | Path) -> KeyTokenModel:
    """Return a key-token model, loaded if it is given by the path of its folder (`KeyTokenModel.load`)."""
    return model if isinstance(model, KeyTokenModel) else KeyTokenModel.load(model)
