# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A key-token model: everything that turns an embedding into weighted tokens, and the folder it is kept in."""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from keytok_haystack.decoder import TokenDecoder, row_blocks, sample_rows
from keytok_haystack.embedding_space import HeadTransform, Preparation, Spectrum
from keytok_haystack.sparse_vectors.rank_features import shortest_decimals
from keytok_haystack.sparse_vectors.rows import row_maxima, rows_to_dicts, scale_columns, scale_rows
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.vocabulary import Vocabulary
from keytok_haystack.weighting import Weighting, add_literals, root_frequencies

FORMAT_VERSION = 2
_CONFIG, _TOKENIZER, _DECODER, _SPECTRUM = (
    "config.json",
    "tokenizer.json",
    "decoder.safetensors",
    "spectrum.safetensors",
)
_FILES = (_TOKENIZER, _DECODER, _SPECTRUM)
_TRANSFORM = "transform."  # begins the names of its arrays


class ModelFolderError(ValueError):
    """A folder that is not a key-token model, or not one that this version can read."""


@dataclass(frozen=True, eq=False)
class KeyTokenModel:
    """
    Turn embeddings into key tokens: sparse weights over the features of a vocabulary.

    Documents and queries are weighted differently. A document keeps the strongest of the tokens that its embedding is
    aligned with and, where its text is known, its own (literal) ones; they are dampened, and scaled so that the
    strongest weighs 1 in the mean over the fitting corpus. A query has its aligned tokens and its own ones, scaled so
    that the strongest weighs 1. The score of a document is the dot product.

    :param vocabulary: The `V` features of a tokenizer. Those that the decoder has rows for come first; a text is found
        by the others only if they are its own tokens.
    :param decoder: From embeddings of dimension `d` to logits of the first `v <= V` features.
    :param weighting: How logits become weights.
    :param source: Where the decoder comes from: "fit", "language-model", "masked-language-model" or
        "word-embeddings".
    :param embedder: The name of the embedding model that this model reads, if known.
    :param idf: Shape `(V,)`, the inverse document frequency of each feature in the fitting corpus, if there was one.
    :param spectrum: The spectrum of the embeddings, if known; `PC1Adjuster` needs it.
    :param query_mean: Of the shape of the preparation's mean, the mean of prepared query embeddings
        (`with_query_mean`), for embedders whose instruction moves queries away from documents; None uses the documents'
        mean.
    :param fit_seconds: How long fitting took, if it was measured.
    :param refine_seconds: How long refining took; None if the decoder is as it was fitted or read.
    """

    vocabulary: Vocabulary
    decoder: TokenDecoder
    weighting: Weighting = field(default_factory=Weighting)
    source: str = "fit"
    embedder: str | None = None
    idf: NDArray[np.float32] | None = None
    spectrum: Spectrum | None = None
    query_mean: NDArray[np.float32] | None = None
    fit_seconds: float | None = None
    refine_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        if len(self.vocabulary) < len(self.decoder):
            msg = f"The vocabulary has only {len(self.vocabulary)} features, but the decoder {len(self.decoder)}."
            raise ValueError(msg)
        if self.idf is not None and self.idf.shape != (len(self.vocabulary),):
            msg = f"The idf has the shape {self.idf.shape}, but there are {len(self.vocabulary)} features."
            raise ValueError(msg)
        columns = self.decoder.weight.shape[1]
        if self.query_mean is not None and self.query_mean.shape != (columns,):
            msg = f"The query mean has the shape {self.query_mean.shape}, but the decoder {columns} columns."
            raise ValueError(msg)
        if self.spectrum is not None and self.spectrum.dimension != self.dimension:
            msg = f"The spectrum has {self.spectrum.dimension} dimensions, but the decoder {self.dimension}."
            raise ValueError(msg)

    @property
    def dimension(self) -> int:
        """The dimension `d` of the embeddings."""
        return self.decoder.dimension

    @cached_property
    def _query_decoder(self) -> TokenDecoder:
        if self.query_mean is None:
            return self.decoder
        return TokenDecoder(self.decoder.weight, replace(self.decoder.preparation, mean=self.query_mean))

    def encode_documents(
        self, embeddings: ArrayLike, texts: Iterable[str] | None = None, top_k: int | None = None
    ) -> csr_array:
        """
        Turn documents into the weights of their key tokens.

        :param embeddings: Shape `(n, d)`, as the embedder gives them or adjusted by `PC1Adjuster`.
        :param texts: The `n` texts, whose own tokens join what the embeddings say: each adds `literal_factor * idf *
            sqrt(tf / length)` to its logit, before the strongest are chosen. None reads the embeddings alone.
        :param top_k: How many tokens to keep; the weighting's `k_document` by default.
        :returns: Shape `(n, V)`, float32. A row is empty where no logit is positive.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings.
        """
        embeddings = check_embeddings(embeddings, self.dimension)
        literals = None if texts is None else self.literal_logits(self._counts(texts, len(embeddings)))
        k = self.weighting.k_document if top_k is None else top_k
        return self.weighting.document_weights(self._widened(self.decoder.top_k(embeddings, k, literals)))

    def literal_logits(self, counts: csr_array) -> csr_array | None:
        """
        Return what documents' own tokens add to their logits.

        :param counts: Shape `(n, V)`, the literal counts.
        :returns: Shape `(n, V)`, or None where nothing is added: the share is 0, or no idf or scale has been fitted.
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
        :param top_k: How many aligned tokens to keep; the weighting's `m_query` by default, 0 for the literals alone.
        :returns: Shape `(n, V)`, float32, the largest weight of each row is 1.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings.
        """
        m = self.weighting.m_query if top_k is None else top_k
        weights = self._widened(self._query_decoder.top_k(embeddings, max(m, 1)))
        if m == 0:
            weights = csr_array(weights.shape, dtype=np.float32)
        if texts is not None:
            weights = add_literals(weights, self._counts(texts, weights.shape[0]), self.idf)
        maxima = row_maxima(weights)
        return scale_rows(weights, 1 / np.where(maxima > 0, maxima, 1))

    def _counts(self, texts: Iterable[str], expected: int) -> csr_array:
        counts = self.vocabulary.literal_counts(texts)
        if counts.shape[0] != expected:
            msg = f"There are {expected} embeddings, but {counts.shape[0]} texts."
            raise ValueError(msg)
        return counts

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
        A digest of all that document weights depend on: vocabulary, idf, decoder, preparation and document weighting.

        The tokenizer's rules count by what they make of a sample of the vocabulary, since their spelling as JSON
        differs between versions of `tokenizers`.

        Documents and queries must come from models of the same fingerprint; `m_query` and `query_mean` may change
        freely.
        """
        preparation = self.decoder.preparation
        digest = hashlib.sha256(f"keytok-haystack {FORMAT_VERSION}\n".encode())
        weighting = asdict(self.weighting)
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

    def with_query_mean(self, embeddings: ArrayLike) -> Self:
        """Return this model with the mean of query embeddings, shape `(n, d)`, in place of the documents' mean."""
        uncentred = replace(self.decoder.preparation, mean=None)
        return replace(self, query_mean=uncentred(check_embeddings(embeddings, self.dimension)).mean(axis=0))

    def with_weighting(self, **changes: Any) -> Self:
        """
        Return this model with changed settings of its `Weighting`.

        The scales stay as they were fitted: after a change of the exponent, the normalization or the literal share,
        `scaled_to` makes the strongest weight 1 in the mean again.
        """
        return replace(self, weighting=replace(self.weighting, **changes))

    def refine(
        self,
        embeddings: ArrayLike,
        texts: Sequence[str] | None = None,
        *,
        seed: int = 0,
        device: str | None = None,
        checkpoint: Path | None = None,
        progress_bar: bool = False,
    ) -> Self:
        """
        Return this model with its decoder refined on a corpus (`TokenDecoder.refine`), and the time that took.

        :param embeddings: Shape `(n, d)`, of the texts that the model was fitted to, or some of them.
        :param texts: The `n` texts; with them the decoder learns to say what a document's own tokens do not.
        :param seed: On a CPU the same seed gives the same model.
        :param device: Where to compute, as torch names it; by default a GPU if there is one.
        :param checkpoint: A file from which an interrupted run of the same input goes on.
        :param progress_bar: Whether to show a progress bar.
        :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
        :raises ValueError: There are not as many texts as embeddings, less than 16, or the device cannot be used.
        :raises TypeError: `texts` is one string.
        :raises ModuleNotFoundError: torch is not installed.
        """
        started = time.perf_counter()
        checked = check_embeddings(embeddings, self.dimension)
        if isinstance(texts, str):
            msg = "`texts` must be a sequence of strings, not one string."
            raise TypeError(msg)
        if texts is not None and len(texts) != len(checked):
            msg = f"There are {len(checked)} embeddings, but {len(texts)} texts."
            raise ValueError(msg)
        rows = sample_rows(len(checked), seed)
        counts = None if texts is None else self.vocabulary.literal_counts([texts[row] for row in rows])
        decoder = self.decoder.refine(
            checked[rows],
            None if counts is None else self.literal_logits(counts),
            weighting=self.weighting,
            seed=seed,
            device=device,
            checkpoint=checkpoint,
            progress_bar=progress_bar,
        )
        refined = replace(self, decoder=decoder)
        if counts is None and self.weighting.literal_factor > 0:  # fitted with texts: scales follow the logits' size
            before, after = (float(row_maxima(each.top_k(checked[rows], 1)).mean()) for each in (self.decoder, decoder))
            ratio = after / before if before > 0 and after > 0 else 1.0
            settings = self.weighting
            refined = refined.with_weighting(
                literal_scale=settings.literal_scale * ratio,
                weight_scale=settings.weight_scale * ratio ** ((1 - settings.normalization) * settings.exponent),
            )
        else:
            refined = refined.scaled_to(checked[rows], counts)
        return replace(refined, refine_seconds=time.perf_counter() - started)

    def scaled_to(self, embeddings: ArrayLike, counts: csr_array | None = None) -> Self:
        """
        Return this model with the scales of its document weighting fitted to a sample of documents.

        :param embeddings: Shape `(n, d)`, a few thousand.
        :param counts: Shape `(n, V)`, the literal counts of their texts; without them literal tokens stay out.
        """
        unscaled = self.with_weighting(weight_scale=1.0, literal_scale=0.0, minimum_weight=0.0)
        literals = None
        if counts is not None and counts.shape[0] and self.idf is not None:
            largest_logit = row_maxima(self.decoder.top_k(embeddings, 1)).mean()
            largest_literal = row_maxima(scale_columns(root_frequencies(counts), self.idf)).mean()
            if largest_literal > 0:
                unscaled = unscaled.with_weighting(literal_scale=largest_logit / largest_literal)
                literals = unscaled.literal_logits(counts)
        strongest = row_maxima(unscaled.weighting.document_weights(self.decoder.top_k(embeddings, 1, literals)))
        mean = float(strongest.mean()) if len(strongest) else 0.0
        minimum_weight = self.weighting.minimum_weight
        return unscaled.with_weighting(weight_scale=mean if mean > 0 else 1.0, minimum_weight=minimum_weight)

    def save(self, path: str | Path) -> None:
        """
        Write the model as a folder, replacing a key-token model that is already there.

        The folder appears whole or not at all: it is written beside its place and moved there.

        :param path: The folder; its parents are created.
        :raises FileExistsError: Something else than a key-token model is at the path.
        """
        path = Path(path)
        check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            self._write(new)
            old = Path(temporary) / "old"
            if path.exists():
                path.replace(old)
            try:
                new.replace(path)
            except BaseException:
                if old.exists():
                    old.replace(path)
                raise

    def _write(self, folder: Path) -> None:
        preparation = self.decoder.preparation
        transform = preparation.transform
        files = {
            _TOKENIZER: self.vocabulary.tokenizer_json.encode(),
            _DECODER: _pack(
                weight=self.decoder.weight.astype(np.float16),
                features=np.frombuffer(json.dumps(self.vocabulary.features).encode(), dtype=np.uint8),
                feature_of_id=self.vocabulary.feature_of_id,
                idf=self.idf,
                mean=preparation.mean,
                removed=preparation.removed,
                shift=preparation.shift,
                query_mean=self.query_mean,
                **({_TRANSFORM + name: array for name, array in transform.arrays.items()} if transform else {}),
            ),
        }
        if self.spectrum is not None:
            files[_SPECTRUM] = _pack(**vars(self.spectrum))
        config = {
            "format_version": FORMAT_VERSION,
            "keytok_haystack_version": version("keytok-haystack"),
            "fingerprint": self.fingerprint,
            "source": self.source,
            "embedder": None if self.embedder is None else str(self.embedder),
            "fit_seconds": self.fit_seconds,
            "refine_seconds": self.refine_seconds,
            "dimension": self.dimension,
            "normalize": preparation.normalize,
            **({"transform": transform.settings} if transform else {}),
            **asdict(self.weighting),
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / _CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """
        Read a model from its folder. Nothing in the folder is ever executed.

        :param path: The folder.
        :raises FileNotFoundError: There is no folder at the path.
        :raises ModelFolderError: The folder is not a key-token model, of another format version, or damaged.
        """
        path = Path(path)
        if not path.is_dir():
            msg = f"There is no key-token model at '{path}'. Make one with `keytok fit DATA --output {path}`."
            raise FileNotFoundError(msg)
        config = _read_config(path)
        digests = {name: digest for name, digest in config["sha256"].items() if name in _FILES}
        files = {name: _read_checked(path / name, digest) for name, digest in digests.items()}
        try:
            model = cls._from_parts(config, files)
        except Exception as error:
            msg = f"The key-token model '{path}' is damaged: {type(error).__name__}: {error}. Make it again."
            raise ModelFolderError(msg) from error
        if model.fingerprint != config["fingerprint"]:
            msg = f"The key-token model '{path}' is damaged: its content does not match its fingerprint. Make it again."
            raise ModelFolderError(msg)
        return model

    @classmethod
    def _from_parts(cls, config: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        tensors = load_tensors(files[_DECODER])
        removed, transform = tensors.get("removed"), None
        if "transform" in config:
            arrays = {n.removeprefix(_TRANSFORM): array for n, array in tensors.items() if n.startswith(_TRANSFORM)}
            transform = HeadTransform(**config["transform"] | arrays)
        preparation = Preparation(
            removed=None
            if removed is None
            else np.atleast_2d(removed),  # of models made by earlier versions, shape (d,)
            shift=tensors.get("shift"),
            normalize=config["normalize"],
            mean=tensors.get("mean"),
            transform=transform,
        )
        tokenizer = Tokenizer.from_str(files[_TOKENIZER].decode())
        decoder = TokenDecoder(tensors["weight"], preparation)
        if decoder.dimension != config["dimension"]:
            msg = f"the decoder has {decoder.dimension} dimensions, the configuration {config['dimension']}"
            raise ValueError(msg)
        return cls(
            vocabulary=Vocabulary(tokenizer, json.loads(tensors["features"].tobytes()), tensors["feature_of_id"]),
            decoder=decoder,
            weighting=Weighting(**{setting.name: config[setting.name] for setting in fields(Weighting)}),
            source=config["source"],
            embedder=config["embedder"],
            fit_seconds=config["fit_seconds"],
            refine_seconds=config["refine_seconds"],
            idf=tensors.get("idf"),
            spectrum=Spectrum(**load_tensors(files[_SPECTRUM])) if _SPECTRUM in files else None,
            query_mean=tensors.get("query_mean"),
        )


def _pack(**arrays: NDArray[Any] | None) -> bytes:
    return bytes(
        save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None})
    )


def check_replaceable(path: Path) -> None:
    """
    Refuse a path at which a model must not be saved.

    :raises FileExistsError: Something else than a key-token model is there.
    """
    if path.exists() and not _is_replaceable(path):
        msg = f"'{path}' exists and is not a key-token model, so it is not replaced. Choose another path."
        raise FileExistsError(msg)


def _is_replaceable(path: Path) -> bool:
    """Whether a path holds nothing but a key-token model, or nothing at all."""
    if not path.is_dir():
        return False
    names = {file.name for file in path.iterdir()}
    if not names:
        return True
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return _is_config(config) and names <= {_CONFIG, *_FILES}


def _is_config(config: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(config, dict) and "format_version" in config and "fingerprint" in config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"'{path}' is not a key-token model: it has no readable {_CONFIG} ({error})."
        raise ModelFolderError(msg) from error
    if not _is_config(config):
        msg = f"'{path}' is not a key-token model: its {_CONFIG} belongs to something else."
        raise ModelFolderError(msg)
    if config["format_version"] != FORMAT_VERSION:
        msg = (
            f"The key-token model '{path}' has format version {config['format_version']}, but this version of "
            f"keytok-haystack reads {FORMAT_VERSION}. Make it again, or install the version that made it."
        )
        raise ModelFolderError(msg)
    if not isinstance(config.get("sha256"), dict):
        msg = f"The key-token model '{path}' is damaged: its {_CONFIG} names no files. Make it again."
        raise ModelFolderError(msg)
    return config


def _read_checked(file: Path, digest: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        msg = f"The key-token model '{file.parent}' is damaged: {file.name} is missing. Make it again."
        raise ModelFolderError(msg) from error
    if hashlib.sha256(content).hexdigest() != digest:
        msg = f"The key-token model '{file.parent}' is damaged: {file.name} is not what was saved. Make it again."
        raise ModelFolderError(msg)
    return content
