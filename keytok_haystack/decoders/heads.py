# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Read a decoder from a checkpoint: an LM head, a masked-language-model head, or an encoder's word embeddings."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.decoders.checkpoints import Checkpoint, CheckpointError, Tensor
from keytok_haystack.embedding_space import HeadTransform, Preparation
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.artefacts import one_line
from keytok_haystack.utils.blocks import row_blocks
from keytok_haystack.vocabulary import TokenizerVocabulary

_HEADS = ("lm_head.weight", "embed_out.weight")
_ENCODER_EMBEDDINGS = (
    "embeddings.word_embeddings.weight",  # BERT and its kin
    "embeddings.tok_embeddings.weight",  # ModernBERT
)
_INPUT_EMBEDDINGS = (
    "embed_tokens.weight",  # Llama, Mistral, Qwen, Gemma, OPT
    "wte.weight",  # GPT-2, GPT-Neo
    "embed_in.weight",  # GPT-NeoX
    "word_embeddings.weight",  # BLOOM, Falcon
)
# A head is padded by less than this many rows, and less than this share of them: the widest paddings known are those of
# Phi-2 (905 of 51,200) and DeepSeek-LLM (2,385 of 102,400).
_PADDED_ROWS, _PADDED_SHARE = 1024, 0.05


@dataclass(frozen=True)
class _MaskedHead:
    """
    What an architecture calls the parts of its masked-language-model head.

    :param dense: The layer before the matrix.
    :param norm: The layer norm between the two.
    :param decoder: The module of the matrix, which is tied to the word embeddings where it is not stored.
    :param biases: The head's bias, first the name that it has where it is not tied to the second.
    :param last_norm: The layer norm at the end of the encoder; `{}` is the number of the last layer.
    :param layers: The setting that says how many layers there are.
    :param activation: The setting that says which activation is used; None if it is always GELU.
    :param epsilon: The setting that says what is added to the variance; None if it is always 1e-12.
    """

    dense: str
    norm: str
    decoder: str
    biases: tuple[str, ...]
    last_norm: str = "encoder.layer.{}.output.LayerNorm"
    layers: str = "num_hidden_layers"
    activation: str | None = None
    epsilon: str | None = "layer_norm_eps"


_MASKED_HEADS = (
    _MaskedHead(  # BERT
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        biases=("cls.predictions.decoder.bias", "cls.predictions.bias"),
        activation="hidden_act",
    ),
    _MaskedHead(  # RoBERTa, XLM-RoBERTa, CamemBERT, MPNet
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        biases=("lm_head.decoder.bias", "lm_head.bias"),
    ),
    _MaskedHead(  # DistilBERT
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        biases=("vocab_projector.bias",),
        last_norm="transformer.layer.{}.output_layer_norm",
        layers="n_layers",
        activation="activation",
        epsilon=None,
    ),
    _MaskedHead(  # ModernBERT
        dense="head.dense",
        norm="head.norm",
        decoder="decoder",
        biases=("decoder.bias",),
        last_norm="final_norm",
        activation="classifier_activation",
        epsilon="norm_eps",
    ),
)


def from_language_model(path_or_id: str | Path, *, local_files_only: bool = False, fold: bool = True) -> KeyTokenModel:
    """
    Read the LM head of a language model: the decoder of every embedder whose backbone it is (section 3 of the paper).

    Only the tokenizer and the head's tensor are read, not the model. Where the head is tied to the input embeddings,
    those are the head.

    :param path_or_id: A checkpoint, or a PEFT adapter, which is merged: a folder, or a hub id.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    :param fold: Whether ids share features (`TokenizerVocabulary.from_tokenizer`).
    :returns: A model without idf and spectrum; give it to `calibrate` with some of your embeddings.
    :raises CheckpointError: The checkpoint cannot be read, has no LM head or was saved without it, or its tokenizer is
        not the head's.
    """
    checkpoint = Checkpoint.open(path_or_id, local_files_only=local_files_only)
    tied = checkpoint.config.get("tie_word_embeddings", True)
    if checkpoint.find(*_HEADS) is None and checkpoint.find(*_ENCODER_EMBEDDINGS) is not None:
        msg = (
            f"The checkpoint '{checkpoint.name}' is of an encoder, which has no LM head. `from_masked_lm` reads its "
            "masked-language-model head, if it was saved with it, and `from_word_embeddings` its word embeddings."
        )
        raise CheckpointError(msg)
    head = checkpoint.find(*_HEADS, tied_to=_INPUT_EMBEDDINGS if tied else ())
    if head is None and not tied:
        msg = (
            f"The checkpoint '{checkpoint.name}' was saved without its LM head, as embedders often are. "
            "Name the language model that it was made from."
        )
        raise CheckpointError(msg)
    return _read(checkpoint, head, "language-model", fold=fold)


def from_masked_lm(path_or_id: str | Path, *, local_files_only: bool = False, fold: bool = True) -> KeyTokenModel:
    """
    Read the head of a masked language model, as BERT, RoBERTa, MPNet, DistilBERT and ModernBERT have one.

    Such a head transforms a hidden state (`HeadTransform`) before its matrix, and has a bias. Without preparation the
    model's logits are those of the masked language model for a hidden state. `calibrate` has each embedding scaled to
    the norm of hidden states, so that unit-length embeddings are read alike.

    :param path_or_id: A checkpoint, or a PEFT adapter, which is merged: a folder, or a hub id.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    :param fold: Whether ids share features (`TokenizerVocabulary.from_tokenizer`).
    :returns: A model without idf and spectrum; give it to `calibrate` with some of your embeddings.
    :raises CheckpointError: The checkpoint cannot be read, has no such head or was saved without it, or its tokenizer
        is not the head's.
    """
    checkpoint = Checkpoint.open(path_or_id, local_files_only=local_files_only)
    parts = next((parts for parts in _MASKED_HEADS if checkpoint.find(f"{parts.dense}.weight") is not None), None)
    if parts is None:
        msg = (
            f"The checkpoint '{checkpoint.name}' has no masked-language-model head that is known by name; embedders "
            "are often saved without it. Name the model that it was made from, or use `from_word_embeddings`; for a "
            "causal language model, `from_language_model`."
        )
        raise CheckpointError(msg)
    transform = _transform(checkpoint, parts)
    tied = checkpoint.config.get("tie_word_embeddings", True)
    matrix = checkpoint.find(f"{parts.decoder}.weight", tied_to=_ENCODER_EMBEDDINGS if tied else ())
    if matrix is not None and matrix.as_matrix().shape[1] != len(transform.weight):
        msg = (
            f"The head of '{checkpoint.name}' does not fit together: {matrix.name} has {matrix.shape[1]} columns, but "
            f"'{parts.dense}' gives {len(transform.weight)}."
        )
        raise CheckpointError(msg)
    preparation = Preparation(normalize=False, transform=transform)
    return _read(checkpoint, matrix, "masked-language-model", preparation, checkpoint.find(*parts.biases), fold=fold)


def from_word_embeddings(path_or_id: str | Path, *, local_files_only: bool = False, fold: bool = True) -> KeyTokenModel:
    """
    Read the word (input) embeddings of an encoder as a decoder, for encoders that come without a head.

    :param path_or_id: A checkpoint, or a PEFT adapter, which is merged: a folder, or a hub id.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    :param fold: Whether ids share features (`TokenizerVocabulary.from_tokenizer`).
    :returns: A model without idf and spectrum; give it to `calibrate` with some of your embeddings.
    :raises CheckpointError: The checkpoint cannot be read, has no word embeddings, or its tokenizer is not theirs.
    """
    checkpoint = Checkpoint.open(path_or_id, local_files_only=local_files_only)
    return _read(checkpoint, checkpoint.find(*_INPUT_EMBEDDINGS, *_ENCODER_EMBEDDINGS), "word-embeddings", fold=fold)


def _transform(checkpoint: Checkpoint, parts: _MaskedHead) -> HeadTransform:
    """Read what comes before the matrix of a masked-language-model head."""
    config = checkpoint.config

    def read(*names: str, default: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        tensor = checkpoint.find(*names)
        if tensor is not None:
            return tensor.read()
        if default is None:
            msg = f"The checkpoint '{checkpoint.name}' lacks '{names[0]}', a part of its masked-language-model head."
            raise CheckpointError(msg)
        return default

    def layer_norm(module: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        gain = read(f"{module}.weight", f"{module}.gamma")  # the latter are the names of BERT's first checkpoints
        return gain, read(f"{module}.bias", f"{module}.beta", default=np.zeros_like(gain))

    weight = read(f"{parts.dense}.weight")
    gain, offset = layer_norm(parts.norm)
    layers = config.get(parts.layers, 0)
    last_gain, last_offset = layer_norm(parts.last_norm.format(layers - 1 if isinstance(layers, int) else layers))
    try:
        return HeadTransform(
            weight=weight,
            bias=read(f"{parts.dense}.bias", default=np.zeros(len(weight), dtype=np.float32)),
            activation="gelu" if parts.activation is None else config.get(parts.activation, "gelu"),
            gain=gain,
            offset=offset,
            epsilon=1e-12 if parts.epsilon is None else float(config.get(parts.epsilon, 1e-12)),
            # a layer norm gives vectors of mean 0 and variance 1, times the gain, plus the offset
            norm=float(np.sqrt((np.square(last_gain) + np.square(last_offset)).sum())),
        )
    except (ValueError, TypeError, OverflowError) as error:
        msg = f"The head of '{checkpoint.name}' cannot be read: {one_line(error)}"
        raise CheckpointError(msg) from error


def _read(
    checkpoint: Checkpoint,
    matrix: Tensor | None,
    source: str,
    preparation: Preparation | None = None,
    bias: Tensor | None = None,
    *,
    fold: bool = True,
) -> KeyTokenModel:
    """
    Make a model of a head.

    :param matrix: Shape `(ids, d)`, if there is one.
    :param preparation: Preparation of embeddings; by default they are scaled to unit length.
    :param bias: Shape `(ids,)`, if there is one.
    :param fold: Whether ids share features.
    """
    if matrix is None:
        msg = f"The checkpoint '{checkpoint.name}' has neither an LM head nor word embeddings that are known by name."
        raise CheckpointError(msg)
    tokenizer = checkpoint.tokenizer()
    own = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1) + 1
    every = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    rows = matrix.as_matrix().shape[0]
    if own > rows or rows > every + max(_PADDED_ROWS, _PADDED_SHARE * rows):
        msg = (
            f"The tokenizer of '{checkpoint.name}' has {every:,} ids, but the head {rows:,} rows: they do not belong "
            "together. Put the tokenizer that the head was trained with into the checkpoint."
        )
        raise CheckpointError(msg)
    try:
        whole = TokenizerVocabulary.from_tokenizer(tokenizer, fold=fold)
    except ValueError as error:
        msg = f"The tokenizer of '{checkpoint.name}' cannot be used: {one_line(error)}"
        raise CheckpointError(msg) from error
    preparation = preparation or Preparation()
    biases = None
    if bias is not None and bias.shape != (rows,):
        msg = f"The bias {bias.name} has the shape {list(bias.shape)}, but the head has {rows:,} rows."
        raise CheckpointError(msg)
    if preparation.transform is not None:
        biases = np.zeros(rows, dtype=np.float32) if bias is None else bias.read()
    vocabulary, weight = _fold(whole, matrix, biases)
    return KeyTokenModel(vocabulary, TokenDecoder(weight, preparation), source=source)


def _fold(
    vocabulary: TokenizerVocabulary, matrix: Tensor, bias: NDArray[np.float32] | None
) -> tuple[TokenizerVocabulary, NDArray[np.float32]]:
    """
    Average the rows of the ids that share a feature; features without a row come last.

    The matrix is read in blocks, and the result is rounded to float16 where it stands: it may be large.

    :param matrix: Shape `(ids, d)`.
    :param bias: Shape `(ids,)`, becomes the last column.
    """
    rows, columns = matrix.shape
    shares = np.bincount(vocabulary.feature_of_id[:rows] + 1, minlength=len(vocabulary) + 1)[1:]  # the first has none
    present = np.flatnonzero(shares)
    vocabulary = vocabulary.reordered(vocabulary.order_with_first(present))
    weight = np.zeros((len(present), columns + (bias is not None)), dtype=np.float32)
    for start, block in matrix.blocks():
        feature_of_id = vocabulary.feature_of_id[start : start + len(block)]
        ids = np.flatnonzero(feature_of_id >= 0)
        features, position = np.unique(feature_of_id[ids], return_inverse=True)
        share = (1 / shares[present[features]]).astype(np.float32)
        average = csr_array((share[position], (position, ids)), shape=(len(features), len(block)))
        weight[features, :columns] += average @ block
        if bias is not None:
            weight[features, columns] += average @ bias[start : start + len(block)]
    for some in row_blocks(weight):
        with np.errstate(over="ignore", invalid="ignore"):
            weight[some] = weight[some].astype(np.float16)
        if not np.isfinite(weight[some]).all():
            msg = f"The head {matrix.name} has values that are not finite, or that float16 does not hold."
            raise CheckpointError(msg)
    return vocabulary, weight
