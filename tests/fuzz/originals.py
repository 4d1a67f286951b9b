# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Small artefacts of each kind, all in order, and how they are used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers.checkpoints import save_checkpoint, save_tokenizer
from helpers.words import WORDS
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from keytok_haystack import (
    CheckpointError,
    EmbeddingError,
    KeyTokenModel,
    ModelFolderError,
    Preparation,
    Spectrum,
    TokenDecoder,
    TokenizerVocabulary,
    WordVocabulary,
    fit,
    from_language_model,
    from_masked_lm,
)
from keytok_haystack.cli.inputs import ready_made
from keytok_haystack.embedding_space import HeadTransform
from keytok_haystack.encoders.cache import model_identity
from keytok_haystack.encoders.foreign_code import check_without_code
from keytok_haystack.encoders.text_cache import TextCache
from keytok_haystack.utils.artefacts import ArtefactError
from keytok_haystack.vocabulary import TokenizerError

D, TEXTS = 8, [f"{first} {second}" for first in WORDS for second in WORDS[:5]]
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def save_originals(folder: Path) -> None:
    """Write an artefact of each kind to a folder of its own."""
    for kind, (save, _, _) in KINDS.items():
        (folder / kind).mkdir(parents=True)
        save(folder / kind)


def _embeddings(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)


def _tokenizer(kind: str) -> Tokenizer:
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<s>"], show_progress=False)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "<s>"], show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " "), normalizers.NFKC()])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(TEXTS, trainer)
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return tokenizer


def _save_words(folder: Path) -> None:
    fit(_embeddings(len(TEXTS)), TEXTS, WordVocabulary.from_texts(TEXTS, "english"), embedder="some").save(folder)


def _save_tokens(folder: Path) -> None:
    vocabulary = TokenizerVocabulary.from_tokenizer(_tokenizer("bpe"))
    fit(_embeddings(len(TEXTS)), TEXTS, vocabulary, preparation=Preparation(), embedder="some").save(folder)


def _save_masked(folder: Path) -> None:
    """A model with the transform of a masked-language-model head."""
    random = np.random.default_rng(1)
    vocabulary = TokenizerVocabulary.from_tokenizer(_tokenizer("wordpiece"))
    ones = np.ones(5, dtype=np.float32)
    transform = HeadTransform(random.normal(size=(5, D)).astype(np.float32), ones, "gelu", ones, ones, 1e-12, 3.0)
    preparation = replace(Spectrum.from_embeddings(_embeddings(40)).removal(), transform=transform)
    weight = random.normal(size=(len(vocabulary), 6))
    KeyTokenModel(vocabulary, TokenDecoder(weight, preparation)).scaled_to(_embeddings(40)).save(folder)


def _head() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(11, D)).astype(np.float32)


def _save_checkpoint(folder: Path) -> None:
    config = {"tie_word_embeddings": False, "hidden_size": D, "text_config": {"vocab_size": 11}}
    save_checkpoint(folder, config, lm_head__weight=_head(), model__embed_tokens__weight=_head())


def _save_sharded(folder: Path) -> None:
    save_checkpoint(folder, {}, lm_head__weight=_head().astype(np.float16))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    save_file({"model.norm.weight": np.ones(D)}, folder / "model-2.safetensors")
    index = {"lm_head.weight": "model-1.safetensors", "model.norm.weight": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _save_pickled(folder: Path) -> None:
    import torch  # noqa: PLC0415  # takes seconds

    save_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    torch.save({"lm_head.weight": torch.from_numpy(_head())}, folder / "pytorch_model.bin")


def _save_masked_checkpoint(folder: Path) -> None:
    random = np.random.default_rng(3)
    head, norm = "cls__predictions__transform__", "encoder__layer__0__output__LayerNorm__"
    tensors = {
        f"{head}dense__weight": random.normal(size=(D, D)),
        **{f"{name}weight": np.ones(D) for name in (f"{head}LayerNorm__", norm)},
        **{f"{name}bias": np.zeros(D) for name in (f"{head}dense__", f"{head}LayerNorm__", norm)},
        "cls__predictions__bias": random.normal(size=11),
        "bert__embeddings__word_embeddings__weight": random.normal(size=(11, D)),
    }
    config = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_hidden_layers": 1}
    save_checkpoint(folder, config, **{name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def _save_adapter(folder: Path) -> None:
    base = folder.parent / "base of adapters"
    _save_checkpoint(base)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": 2,
        "lora_alpha": 4,
        "use_rslora": False,
        "alpha_pattern": {"lm_.ead": 3},
        "target_modules": ["lm_head"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.lm_head.lora_{}.weight"
    arrays = {"A": np.ones((2, D), dtype=np.float32), "B": np.ones((11, 2), dtype=np.float32)}
    save_file({name.format(part): array for part, array in arrays.items()}, folder / "adapter_model.safetensors")


def _save_tokenizers(folder: Path) -> None:
    for kind in ("bpe", "wordpiece", "unigram"):
        _tokenizer(kind).save(str(folder / f"{kind}.json"))


def _save_cache(folder: Path) -> None:
    cache = TextCache(folder)
    cache.add(TEXTS[:4], _embeddings(4), 1.0)
    cache.add(TEXTS[4:6], _embeddings(2), 1.0)


def _save_npy(folder: Path) -> None:
    np.save(folder / "c.npy", _embeddings(4))
    np.save(folder / "fortran.npy", np.asfortranarray(_embeddings(4).astype(np.float64)))


def _save_embedder(folder: Path) -> None:
    kinds = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
             for i, (name, path) in enumerate((("Transformer", ""), ("Router", "1_Router")))]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "config.json").write_text("{}")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "no/where"}))
    (folder / "1_Router").mkdir()
    router = {"types": {"a": "sentence_transformers.models.Dense"}, "structure": {"query": ["a"]}, "parameters": {}}
    (folder / "1_Router" / "router_config.json").write_text(json.dumps(router))


def _use_model(folder: Path) -> None:
    _encode(KeyTokenModel.load(folder))


def _encode(model: KeyTokenModel) -> None:
    vectors = np.random.default_rng(4).normal(size=(2, model.dimension)).astype(np.float32)
    texts = ["the lift of a wing, 3.5!", ""]
    for some in (None, texts):
        for rows in (model.encode_documents(vectors, some), model.encode_queries(vectors, some)):
            assert np.isfinite(rows.rows.data).all()
            assert (rows.rows.data >= 0).all()
        model.document_tokens(model.encode_documents(vectors, some))
        model.query_tokens(model.encode_queries(vectors, some))
    if model.spectrum is not None:
        model.spectrum.adjust(vectors)


def _use_checkpoint(folder: Path) -> None:
    _encode(from_language_model(folder, local_files_only=True))


def _use_masked_checkpoint(folder: Path) -> None:
    _encode(from_masked_lm(folder, local_files_only=True))


def _use_tokenizers(folder: Path) -> None:
    for file in folder.glob("*.json"):
        for fold in (True, False):
            vocabulary = TokenizerVocabulary.from_tokenizer(file, fold=fold)
            counts = vocabulary.literal_counts(["the lift of a wing, 3.5!", "", "\n  \t é́ﬁ ﷺ 衝撃"])
            assert counts.rows.shape[1] == len(vocabulary)
            vocabulary.words_of_pieces("the lift of a wing")


def _use_cache(folder: Path) -> None:
    cache = TextCache(folder)
    for embedding, _ in cache.find(TEXTS[:8]).values():
        assert np.isfinite(embedding).all()
    cache.merge()


def _use_npy(folder: Path) -> None:
    for file in folder.glob("*.npy"):
        assert np.isfinite(ready_made(file, 4).embeddings).all()


def _use_embedder(folder: Path) -> None:
    model_identity(str(folder))
    check_without_code(str(folder))


def is_one_sentence(error: BaseException) -> bool:
    """Whether a message is in one line of readable length, and can be written anywhere."""
    message = str(error)
    return 0 < len(message) < 2500 and "\n" not in message and not any("\ud800" <= c <= "\udfff" for c in message)


_OF_MODELS = (ModelFolderError, EmbeddingError, TokenizerError)
_OF_CHECKPOINTS = (CheckpointError, EmbeddingError, TokenizerError)
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], tuple[type[Exception], ...]]] = {
    "model of words": (_save_words, _use_model, _OF_MODELS),
    "model of tokens": (_save_tokens, _use_model, _OF_MODELS),
    "model with a transform": (_save_masked, _use_model, _OF_MODELS),
    "checkpoint": (_save_checkpoint, _use_checkpoint, _OF_CHECKPOINTS),
    "sharded checkpoint": (_save_sharded, _use_checkpoint, _OF_CHECKPOINTS),
    "pickled checkpoint": (_save_pickled, _use_checkpoint, _OF_CHECKPOINTS),
    "masked checkpoint": (_save_masked_checkpoint, _use_masked_checkpoint, _OF_CHECKPOINTS),
    "adapter": (_save_adapter, _use_checkpoint, _OF_CHECKPOINTS),
    "tokenizer": (_save_tokenizers, _use_tokenizers, (ValueError, FileNotFoundError, TokenizerError)),
    "cache": (_save_cache, _use_cache, ()),
    "npy": (_save_npy, _use_npy, (ValueError, FileNotFoundError, ArtefactError, EmbeddingError)),
    "embedder": (_save_embedder, _use_embedder, (ValueError, ArtefactError)),
}
"""How an artefact of each kind is written and used, and the errors by which it may be refused."""
