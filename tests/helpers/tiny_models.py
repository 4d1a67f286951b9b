# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Random language models of the architectures of known embedders: their real configurations, but for the sizes."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = (
    "The boundary layer on a flat plate in supersonic flow.",
    "Heat transfer to a blunt body behind a shock wave.",
    'He said "lift" and then: {drag}?',
    "Flügel, Stoßwellen und Grenzschichten — 3.5 % mehr Auftrieb 🚀",
    "What is the lift of a wing at low speed?",
)
_LEARNED_FROM = (
    *TEXTS,
    'This sentence : "lift" means in one word:"',
    'This sentence : "wing" means [MASK].',
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: flow",
    "<|user|>\nGiven a web search query, retrieve relevant passages that answer the query\n<|embed|>\nquery: wave",
    "[INST] Given a web search query, retrieve relevant passages that answer the query: heat [/INST] passage: flow",
)
_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WINDOW = 128  # the positions of all models


def _byte_level(special: list[str], words: str | None = None) -> Tokenizer:
    """As of GPT-2, OPT and Qwen: tokens of bytes, the space in front of a word belongs to it."""
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    splits = [pre_tokenizers.Split(Regex(words), behavior="isolated")] if words else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LEARNED_FROM, trainer)
    return tokenizer


def gpt2_tokenizer() -> Tokenizer:
    return _byte_level(["<|endoftext|>"])


def opt_tokenizer() -> Tokenizer:
    tokenizer = _byte_level(["<s>", "<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return tokenizer


def qwen_tokenizer(*, ended: bool = False) -> Tokenizer:
    """That of Qwen2, or as Qwen3-Embedding has it, which ends inputs itself."""
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], words)
    tokenizer.normalizer = normalizers.NFC()
    if ended:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
        )
    return tokenizer


def llama_tokenizer() -> Tokenizer:
    """As of Llama and Mistral, where SentencePiece made it: spaces are letters, unknown characters are bytes."""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    learned.train_from_iterator(
        [text.replace("\n", " ") for text in _LEARNED_FROM if text.isascii()],
        trainers.BpeTrainer(vocab_size=200, show_progress=False),
    )
    model = json.loads(learned.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in pieces[:3]])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def bert_tokenizer(special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> Tokenizer:
    """As of BERT and MPNet: lower case, whole words first, begun and ended."""
    _, unknown, begin, end, mask = special
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=[*special[:4]], show_progress=False)
    tokenizer.train_from_iterator(_LEARNED_FROM, trainer)
    tokenizer.add_special_tokens([AddedToken(mask, normalized=False, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, special.index(begin)), (end, special.index(end))]
    )
    return tokenizer


@dataclass(frozen=True)
class Architecture:
    """
    :param config: What differs from the defaults of its type.
    :param auto: With which head it is saved.
    :param tokens: The tokenizer's class and special tokens.
    """

    model_type: str
    config: dict[str, object]
    auto: type
    tokenizer: Tokenizer
    tokens: dict[str, str]


_DECODER = {**_WIDTHS, "num_key_value_heads": 2, "max_position_embeddings": WINDOW}
_ENCODER = {**_WIDTHS, "max_position_embeddings": WINDOW}
_CAUSAL = transformers.AutoModelForCausalLM
_GPT2 = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
_OPT = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
_LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_QWEN = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_BERT = {
    "tokenizer_class": "BertTokenizer",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_MPNET = {
    "tokenizer_class": "MPNetTokenizer",
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "[UNK]",
    "mask_token": "<mask>",
}

ARCHITECTURES = {
    "gpt-neo": Architecture(
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
            "max_position_embeddings": WINDOW,
        },
        _CAUSAL,
        gpt2_tokenizer(),
        _GPT2,
    ),
    "opt": Architecture("opt", {**_ENCODER, "ffn_dim": 64, "word_embed_proj_dim": 32}, _CAUSAL, opt_tokenizer(), _OPT),
    "opt-350m": Architecture(
        "opt",
        {**_ENCODER, "ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        _CAUSAL,
        opt_tokenizer(),
        _OPT,
    ),
    "llama": Architecture("llama", {**_DECODER, "rms_norm_eps": 1e-6}, _CAUSAL, llama_tokenizer(), _LLAMA),
    "mistral": Architecture("mistral", {**_DECODER, "sliding_window": 4096}, _CAUSAL, llama_tokenizer(), _LLAMA),
    "mistral-instruct": Architecture(
        "mistral", {**_DECODER, "rope_theta": 1e6, "sliding_window": None}, _CAUSAL, llama_tokenizer(), _LLAMA
    ),
    "e5-mistral": Architecture(
        "mistral", {**_DECODER, "sliding_window": 4096}, transformers.AutoModel, llama_tokenizer(), _LLAMA
    ),
    "qwen2": Architecture(
        "qwen2", {**_DECODER, "tie_word_embeddings": False, "rope_theta": 1e6}, _CAUSAL, qwen_tokenizer(), _QWEN
    ),
    "qwen3-base": Architecture(
        "qwen3", {**_DECODER, "head_dim": 12, "tie_word_embeddings": True}, _CAUSAL, qwen_tokenizer(), _QWEN
    ),
    "qwen3": Architecture(
        "qwen3", {**_DECODER, "head_dim": 12, "tie_word_embeddings": True}, _CAUSAL, qwen_tokenizer(ended=True), _QWEN
    ),
    "qwen3-8b": Architecture(
        "qwen3",
        {**_DECODER, "head_dim": 12, "tie_word_embeddings": False},
        transformers.AutoModel,
        qwen_tokenizer(ended=True),
        _QWEN,
    ),
    "bert": Architecture("bert", _ENCODER, transformers.AutoModelForMaskedLM, bert_tokenizer(), _BERT),
    "bare-bert": Architecture("bert", _ENCODER, transformers.AutoModel, bert_tokenizer(), _BERT),
    "mpnet": Architecture(
        "mpnet",
        {**_ENCODER, "max_position_embeddings": WINDOW + 2},
        transformers.AutoModelForMaskedLM,
        bert_tokenizer(("<pad>", "[UNK]", "<s>", "</s>", "<mask>")),
        _MPNET,
    ),
}


def save_tiny(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write a model whose parameters are random, large enough for all of them to matter, and fit into float16."""
    architecture = ARCHITECTURES[name]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=architecture.tokenizer,
        model_max_length=10**6,
        **{key: token for key, token in architecture.tokens.items() if key != "tokenizer_class"},
    )
    config = transformers.AutoConfig.for_model(
        architecture.model_type,
        **architecture.config,
        vocab_size=len(tokenizer) + 3,  # as heads are padded
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    network = architecture.auto.from_config(config)
    randomize(network)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    kept = json.loads(settings.read_text()) | {"tokenizer_class": architecture.tokens["tokenizer_class"]}
    settings.write_text(json.dumps(kept))
    return folder


def randomize(network: torch.nn.Module) -> None:
    """Draw matrices anew and shift norms and biases, such that float16 holds all as they are."""
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape)
            parameter.copy_((0.4 * noise if parameter.ndim > 1 else parameter + 0.2 * noise).half())
