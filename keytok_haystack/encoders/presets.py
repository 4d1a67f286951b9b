# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Presets of embedders, one row each: the prompts, the pooling of hidden states, and the model with the head."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Role = Literal["document", "query"]
Pooling = Literal["last", "mean", "weighted-mean", "cls", "pooler", "mask"]

_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_PLACE = "{instruction}"


@dataclass(frozen=True)
class Prompt:
    """
    Text around the text to embed.

    :param before: Text before it; `{instruction}` is the place of the instruction.
    :param after: Text after it, which truncation never reaches.
    :param apart: Whether the three parts are tokenized separately, so that no token spans two of them.
    """

    before: str = ""
    after: str = ""
    apart: bool = False


@dataclass(frozen=True)
class Preset:
    """
    Recipe by which an embedder is run, as its authors run it.

    :param checkpoint: Hub id or path of the model; None if the user names it, as in `prompt-eol:PATH`.
    :param adapters: PEFT adapters to merge into it, in this order.
    :param backbone: Model whose head decodes the embeddings; None if the checkpoint has the head.
    :param pooling: Hidden states of the last layer, after its final norm, that become the embedding: that of the last
        token, the first token (cls), also as the encoder's pooling layer returns it (pooler), or the mask token; the
        mean; or the mean with weights 1, 2, ... (SGPT).
    :param pools_prompt: Whether a mean is over the whole input, or only over the text and what follows it (GritLM).
    :param bidirectional: Whether all tokens of a causal language model attend to each other.
    :param document: Prompt of a document.
    :param query: Prompt of a query.
    :param instruction: Default instruction of queries.
    :param ending: Token that the input ends with, whether or not the tokenizer adds it.
    :param max_tokens: Maximum length of the whole input in tokens; None is the model's window.
    :param normalize: Whether embeddings are scaled to unit length.
    """

    checkpoint: str | None = None
    adapters: tuple[str, ...] = ()
    backbone: str | None = None
    pooling: Pooling = "last"
    pools_prompt: bool = True
    bidirectional: bool = False
    document: Prompt = Prompt()
    query: Prompt = Prompt()
    instruction: str = ""
    ending: str | None = None
    max_tokens: int | None = 512
    normalize: bool = False

    @property
    def takes_instruction(self) -> bool:
        """Whether the prompt of queries has a place for an instruction."""
        return _PLACE in self.query.before

    def prompt(self, role: Role, instruction: str | None = None) -> Prompt:
        """
        Return the prompt of a text.

        :param role: Role of the text, "document" or "query".
        :param instruction: Instruction in place of the preset's own, also for documents; with an empty one queries have
            the prompt of documents, if the preset takes instructions.
        :raises ValueError: The preset takes no instruction, or the role does not exist.
        """
        if role not in get_args(Role):
            msg = f"role must be 'document' or 'query', but it is {role!r}."
            raise ValueError(msg)
        if instruction and not self.takes_instruction:
            msg = "This embedder takes no instruction: leave it out."
            raise ValueError(msg)
        chosen = (self.instruction if role == "query" else "") if instruction is None else instruction
        if role == "document" and not chosen:
            return self.document
        if self.takes_instruction and not chosen:
            return self.document
        return replace(self.query, before=self.query.before.replace(_PLACE, chosen))


_EOL = Prompt('This sentence : "', '" means in one word:"')
_PROMPT_EOL = Preset(document=_EOL, query=_EOL)
_MASK = Prompt('This sentence : "', '" means [MASK].')
_PROMPT_BERT = Preset(backbone="google-bert/bert-base-uncased", pooling="mask", document=_MASK, query=_MASK)
_SGPT = Preset(pooling="weighted-mean", backbone="EleutherAI/gpt-neo-1.3B")
_LLM2VEC = Preset(
    checkpoint="mistralai/Mistral-7B-Instruct-v0.2",
    pooling="mean",
    pools_prompt=False,
    bidirectional=True,
    document=Prompt("[INST] ", " [/INST]"),
    query=Prompt("[INST] {instruction} ", " [/INST]"),
    instruction=f"{_SEARCH}:",
)
_LLM2VEC_MNTP = "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp"
_GTE_QWEN2 = Preset(
    bidirectional=True,
    query=Prompt("Instruct: {instruction}\nQuery: "),
    instruction=_SEARCH,
    ending="<|endoftext|>",
    max_tokens=8192,
    normalize=True,
)
_QWEN3 = Preset(
    query=Prompt("Instruct: {instruction}\nQuery:"),
    instruction=_SEARCH,
    ending="<|endoftext|>",
    max_tokens=8192,
    normalize=True,
)
_BERT_LIKE = Preset(backbone="google-bert/bert-base-uncased", pooling="mean")

PRESETS: dict[str, Preset] = {
    # one word limitation (Jiang et al. 2023): any language model, trained to embed or not
    "prompt-eol": _PROMPT_EOL,
    "opt-eol": replace(_PROMPT_EOL, checkpoint="facebook/opt-1.3b"),
    "opt-eol-cse": replace(_PROMPT_EOL, checkpoint="facebook/opt-1.3b", adapters=("royokong/prompteol-opt-1.3b",)),
    "llama-eol": replace(_PROMPT_EOL, checkpoint="huggyllama/llama-7b"),
    "llama-eol-cse": replace(_PROMPT_EOL, checkpoint="huggyllama/llama-7b", adapters=("royokong/prompteol-llama-7b",)),
    # SGPT (Muennighoff 2022)
    "sgpt-nli": replace(_SGPT, checkpoint="Muennighoff/SGPT-1.3B-weightedmean-nli"),
    "sgpt-msmarco": replace(
        _SGPT,
        checkpoint="Muennighoff/SGPT-1.3B-weightedmean-msmarco-specb-bitfit",
        document=Prompt("{", "}", apart=True),
        query=Prompt("[", "]", apart=True),
        max_tokens=300,
    ),
    # GritLM (Muennighoff et al. 2024)
    "gritlm-7b": Preset(
        checkpoint="GritLM/GritLM-7B",
        pooling="mean",
        pools_prompt=False,
        bidirectional=True,
        document=Prompt("<|embed|>\n"),
        query=Prompt("<|user|>\n{instruction}\n<|embed|>\n"),
        instruction=_SEARCH,
        normalize=True,
    ),
    # LLM2Vec (BehnamGhader et al. 2024)
    "llm2vec-unsup": replace(_LLM2VEC, adapters=(_LLM2VEC_MNTP, f"{_LLM2VEC_MNTP}-unsup-simcse")),
    "llm2vec-sup": replace(_LLM2VEC, adapters=(_LLM2VEC_MNTP, f"{_LLM2VEC_MNTP}-supervised")),
    # E5-mistral (Wang et al. 2024)
    "e5-mistral": Preset(
        checkpoint="intfloat/e5-mistral-7b-instruct",
        backbone="mistralai/Mistral-7B-v0.1",
        query=Prompt("Instruct: {instruction}\nQuery: "),
        instruction=_SEARCH,
        ending="</s>",  # transformers 5 drops the tokenizer's own rule to add it
        max_tokens=4096,
        normalize=True,
    ),
    # GTE-Qwen2 (Li et al. 2023); 1.5B's card says bidirectional, some servers run it causally
    "gte-qwen2-1.5b": replace(_GTE_QWEN2, checkpoint="Alibaba-NLP/gte-Qwen2-1.5B-instruct"),
    "gte-qwen2-7b": replace(_GTE_QWEN2, checkpoint="Alibaba-NLP/gte-Qwen2-7B-instruct"),
    # Qwen3-Embedding (Zhang et al. 2025); the largest is not tied and comes without its head
    "qwen3-embedding-0.6b": replace(_QWEN3, checkpoint="Qwen/Qwen3-Embedding-0.6B"),
    "qwen3-embedding-4b": replace(_QWEN3, checkpoint="Qwen/Qwen3-Embedding-4B"),
    "qwen3-embedding-8b": replace(_QWEN3, checkpoint="Qwen/Qwen3-Embedding-8B", backbone="Qwen/Qwen3-8B-Base"),
    # the paper's encoders, with the MLM head of the model that they were made from
    "prompt-bert": replace(_PROMPT_BERT, checkpoint="google-bert/bert-base-uncased"),
    "prompt-bert-unsup": replace(_PROMPT_BERT, checkpoint="royokong/unsup-PromptBERT"),
    "prompt-bert-sup": replace(_PROMPT_BERT, checkpoint="royokong/sup-PromptBERT"),
    "simcse-sup": replace(_BERT_LIKE, checkpoint="princeton-nlp/sup-simcse-bert-base-uncased", pooling="pooler"),
    "contriever": replace(_BERT_LIKE, checkpoint="facebook/contriever"),
    "gte-base": replace(_BERT_LIKE, checkpoint="thenlper/gte-base", normalize=True),
    "e5-base-v2": replace(
        _BERT_LIKE,
        checkpoint="intfloat/e5-base-v2",
        document=Prompt("passage: "),
        query=Prompt("query: "),
        normalize=True,
    ),
    "all-mpnet-base-v2": replace(
        _BERT_LIKE,
        checkpoint="sentence-transformers/all-mpnet-base-v2",
        backbone="microsoft/mpnet-base",
        max_tokens=384,
        normalize=True,
    ),
}
"""Embedders that are known by name, and recipes for others of their kind, as in `prompt-eol:PATH`."""


def find_preset(embedder: str) -> Preset | None:
    """
    Return the preset of an embedder, `NAME` or `NAME:CHECKPOINT`; None if there is no preset of that name.

    The checkpoint of the second form, a hub id or a path, replaces the preset's own, and its own head then decodes the
    embeddings.

    :raises ValueError: The preset has no checkpoint, and none is named.
    """
    name, _, checkpoint = embedder.partition(":")
    preset = PRESETS.get(name)
    if preset is None:
        return None
    if checkpoint:
        return replace(preset, checkpoint=checkpoint, adapters=(), backbone=None)
    if preset.checkpoint is None:
        msg = f"'{name}' says how to run a language model, but not which one: name it, as in '{name}:PATH'."
        raise ValueError(msg)
    return preset


def overview() -> list[tuple[str, str, str, str, str]]:
    """Return the name, checkpoint with adapters, pooling, attention and backbone of each preset."""
    rows = []
    for name, preset in PRESETS.items():
        checkpoint = preset.checkpoint or f"{name}:CHECKPOINT"
        pooling = preset.pooling if preset.pools_prompt else f"{preset.pooling}, no instruction"
        attention = "both ways" if preset.bidirectional else ""
        rows.append((name, " + ".join((checkpoint, *preset.adapters)), pooling, attention, preset.backbone or ""))
    return rows
