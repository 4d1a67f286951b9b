# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The head that decodes an embedder's embeddings."""

from pathlib import Path

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.decoders import from_language_model, from_masked_lm, from_word_embeddings
from keytok_haystack.decoders.checkpoints import Checkpoint, CheckpointError
from keytok_haystack.embedding_space import Preparation
from keytok_haystack.encoders.gguf import unpacked
from keytok_haystack.encoders.presets import find_preset
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.artefacts import is_folder

KEY_TOKENS = "key_tokens"
"""Name of the key-token model's folder within that of an embedder that `keytok train` has written."""


def head_of(embedder: str, *, local_files_only: bool = False, fold: bool = True) -> KeyTokenModel:
    """
    Read the head that decodes an embedder's embeddings.

    It is the LM head of the embedder or its backbone, the masked-language-model head of an encoder, or the word
    embeddings of an encoder without a head, which heads are tied to. An embedder that `keytok train` has written comes
    with the head that it was trained with.

    :param embedder: Embedder, as for `embed`.
    :param local_files_only: Whether to read files of hub models from the local cache only.
    :param fold: Whether several token ids can share a feature (`TokenizerVocabulary.from_tokenizer`).
    :returns: A model without idf and spectrum; pass it to `calibrate` with some of your embeddings.
    :raises CheckpointError: The embedder has no head, or it cannot be read.
    """
    source = head_source(embedder)
    kept = Path(source) / KEY_TOKENS
    if fold and is_folder(kept):
        model = KeyTokenModel.load(kept)
        transform = model.decoder.preparation.transform
        decoder = TokenDecoder(model.decoder.weight, Preparation(normalize=transform is None, transform=transform))
        return KeyTokenModel(model.vocabulary, decoder, source=model.source)
    tied = Checkpoint.open(source, local_files_only=local_files_only).config.get("tie_word_embeddings", True)
    readers = [from_language_model, from_masked_lm, from_word_embeddings]
    errors = []
    for read in readers if tied else readers[:2]:
        try:
            return read(source, local_files_only=local_files_only, fold=fold)
        except CheckpointError as error:
            errors.append(error)
    raise errors[0]


def head_source(embedder: str) -> str:
    """Return the checkpoint that has an embedder's head: that of a preset's backbone, or its own."""
    preset = find_preset(embedder)
    return embedder if preset is None else unpacked(str(preset.backbone or preset.checkpoint))
