# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Read a decoder from a checkpoint: an LM head, or an encoder's word embeddings."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sources.checkpoint import Checkpoint, CheckpointError
from keytok_haystack.spectrum import Preparation, Spectrum, check_embeddings
from keytok_haystack.vocabulary import Vocabulary
from keytok_haystack.weighting import inverse_document_frequency

_HEADS = ("lm_head.weight", "embed_out.weight")
_INPUT_EMBEDDINGS = (
    "embed_tokens.weight",  # Llama, Mistral, Qwen, Gemma, OPT
    "wte.weight",  # GPT-2, GPT-Neo
    "embed_in.weight",  # GPT-NeoX
    "word_embeddings.weight",  # BERT and its kin, BLOOM
    "tok_embeddings.weight",  # ModernBERT
)


def from_language_model(path_or_id: str | Path, *, local_files_only: bool = False) -> KeyTokenModel:
    """
    Read the LM head of a language model: the decoder of every embedder whose backbone it is (section 3 of the paper).

    Only the tokenizer and the head's tensor are read, not the model. Where the head is tied to the input embeddings,
    those are the head.

    :param path_or_id: A checkpoint in safetensors format: a folder, or a hub id.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    :returns: A model without idf and spectrum; give it to `calibrate` with some of your embeddings.
    :raises CheckpointError: The checkpoint cannot be read, or was saved without its head.
    """
    checkpoint = Checkpoint.open(path_or_id, local_files_only=local_files_only)
    names = checkpoint.tensor_files()
    head = _find(names, _HEADS)
    if head is None and not checkpoint.config.get("tie_word_embeddings", True):
        msg = (
            f"The checkpoint '{checkpoint.name}' was saved without its LM head, as embedders often are. "
            "Name the language model that it was made from."
        )
        raise CheckpointError(msg)
    return _read(checkpoint, names, head, "language-model")


def from_word_embeddings(path_or_id: str | Path, *, local_files_only: bool = False) -> KeyTokenModel:
    """
    Read the word (input) embeddings of an encoder as a decoder, for encoders that come without a head.

    :param path_or_id: A checkpoint in safetensors format: a folder, or a hub id.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    :returns: A model without idf and spectrum; give it to `calibrate` with some of your embeddings.
    :raises CheckpointError: The checkpoint cannot be read, or has no word embeddings.
    """
    checkpoint = Checkpoint.open(path_or_id, local_files_only=local_files_only)
    return _read(checkpoint, checkpoint.tensor_files(), None, "word-embeddings")


def calibrate(
    model: KeyTokenModel,
    embeddings: "ArrayLike",
    texts: Iterable[str] | None = None,
    *,
    remove_pc1: bool = True,
    embedder: str | None = None,
) -> KeyTokenModel:
    """
    Fit what a decoder read from a checkpoint lacks: the spectrum, the mean, the weight scale, and the idf.

    :param model: The model to complete; its decoder's matrix stays as it is.
    :param embeddings: Shape `(n, d)`, a sample of the corpus, a few thousand at most.
    :param texts: The `n` texts, for the idf of literal tokens; without them all literal tokens of a query weigh alike,
        and documents have none.
    :param remove_pc1: Remove the first principal component (section 4 of the paper).
    :param embedder: The name of the embedding model, kept in the model.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: There are not as many texts as embeddings.
    """
    checked = check_embeddings(embeddings, model.dimension)
    spectrum = Spectrum.from_embeddings(Preparation()(checked))
    preparation = Preparation(removed=spectrum.pc1 if remove_pc1 else None)
    centred = replace(preparation, mean=preparation(checked).mean(axis=0))
    idf, counts = model.idf, None
    if texts is not None:
        counts = model.vocabulary.literal_counts(texts)
        if counts.shape[0] != len(checked):
            msg = f"There are {len(checked)} embeddings, but {counts.shape[0]} texts."
            raise ValueError(msg)
        frequency = np.bincount(counts.indices, minlength=len(model.vocabulary))
        idf = inverse_document_frequency(frequency, counts.shape[0])
    calibrated = replace(
        model,
        decoder=TokenDecoder(model.decoder.weight, centred),
        spectrum=spectrum,
        idf=idf,
        embedder=embedder,
    )
    return calibrated.scaled_to(checked, counts)


def _find(names: Iterable[str], endings: tuple[str, ...]) -> str | None:
    """Return the first tensor whose dotted name ends so."""
    return next((name for ending in endings for name in names if f".{name}".endswith(f".{ending}")), None)


def _read(checkpoint: Checkpoint, names: dict[str, str], tensor: str | None, source: str) -> KeyTokenModel:
    tensor = tensor or _find(names, _INPUT_EMBEDDINGS)
    if tensor is None:
        msg = f"The checkpoint '{checkpoint.name}' has neither an LM head nor word embeddings that are known by name."
        raise CheckpointError(msg)
    file = checkpoint.file("tokenizer.json")
    try:
        whole = Vocabulary.from_tokenizer(file)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    vocabulary, weight = _fold(whole, checkpoint.matrix(tensor, names[tensor]))
    return KeyTokenModel(vocabulary, TokenDecoder(weight, Preparation(normalize=True)), source=source)


def _fold(vocabulary: Vocabulary, matrix: NDArray[np.float32]) -> tuple[Vocabulary, NDArray[np.float32]]:
    """Average the rows, shape `(ids, d)`, of the ids that share a feature; features without a row come last."""
    feature_of_id = vocabulary.feature_of_id[: len(matrix)]
    ids = np.flatnonzero(feature_of_id >= 0)
    features = feature_of_id[ids]
    share = np.bincount(features, minlength=len(vocabulary))
    present = np.flatnonzero(share)
    average = csr_array(
        ((1 / share[features]).astype(np.float32), (features, ids)), shape=(len(vocabulary), len(matrix))
    )
    return vocabulary.reordered(vocabulary.led_by(present)), average[present] @ matrix
