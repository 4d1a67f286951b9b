# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Run a language model as an embedder: batches, attention, and the pooling of its hidden states."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from keytok_haystack.decoders.checkpoints import Checkpoint
from keytok_haystack.embedding_space import Preparation
from keytok_haystack.encoders.adapters import base_of, with_adapter
from keytok_haystack.encoders.gguf import unpacked
from keytok_haystack.encoders.inputs import Input, InputBuilder, check_finite
from keytok_haystack.encoders.presets import PRESETS, Preset, Role, find_preset
from keytok_haystack.utils.checks import check_texts
from keytok_haystack.utils.device import usable_device
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.vocabulary import check_tokenizer

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BATCH_TOKENS = {"cpu": 4096}
_BATCH_TOKENS_ON_GPU = 32_768


class Batch(NamedTuple):
    """
    Padded inputs.

    :param tokens: Shape `(b, length)`.
    :param mask: Shape `(b, length)`, 0 where there is padding.
    :param pooling_weights: Shape `(b, length)`, weights of the tokens' hidden states in the
        embedding; rows sum to 1.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    pooling_weights: torch.Tensor


class LanguageModelEncoder:
    """
    A language model in memory, and the recipe by which it embeds texts (`PRESETS`).

    Texts are sorted by their lengths in tokens and go through the model in batches of about equal work. They are padded
    on the right, where a causal model does not see the padding and positions count from the first token. Hidden states
    are pooled in float32.

    :param embedder: Name of a preset, or `NAME:CHECKPOINT` for another checkpoint of the preset's kind: a hub id, a
        folder, a PEFT adapter or a GGUF file.
    :param max_tokens: Maximum length of the whole input in tokens, prompt and special tokens included; by default that
        of the preset, at most the model's window. The end of a longer text is cut off; the prompt stays whole.
    :param device: Device to run on, as torch names it; by default a GPU if there is one.
    :param dtype: Type of the weights, as torch names it; by default float32 on a CPU, and elsewhere bfloat16, or
        float16 on GPUs without bfloat16.
    :param batch_tokens: Maximum number of tokens in a batch, padding included.
    :param token: Access token for gated checkpoints on the Hugging Face hub.
    :raises ValueError: The embedder is not a preset, its checkpoint cannot be loaded or run like that, or `max_tokens`
        exceeds its window.
    """

    def __init__(
        self,
        embedder: str,
        *,
        max_tokens: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int | None = None,
        token: str | None = None,
    ) -> None:
        preset = find_preset(embedder)
        if preset is None or preset.checkpoint is None:
            msg = f"'{embedder}' is not an embedder that is known by name: {', '.join(PRESETS)}."
            raise ValueError(msg)
        self.preset = preset
        self.device = usable_device(device)
        if batch_tokens is not None and batch_tokens <= 0:
            msg = f"batch_tokens must be greater than 0, but it is {batch_tokens}."
            raise ValueError(msg)
        self._batch_tokens = batch_tokens or _BATCH_TOKENS.get(self.device.type, _BATCH_TOKENS_ON_GPU)
        model, tokenizer = _load(preset, preset.checkpoint, _dtype(dtype, self.device), token)
        self.network: Any = model.to(self.device).eval()
        self.tokenizer = tokenizer
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self._pad = next(each for each in ids if each is not None)
        self._mask = tokenizer.mask_token_id
        if preset.pooling == "mask" and self._mask is None:
            msg = f"'{embedder}' pools the mask token, but the tokenizer of '{preset.checkpoint}' has none."
            raise ValueError(msg)
        if preset.pooling == "pooler" and getattr(model, "pooler", None) is None:
            msg = f"'{embedder}' uses the pooler of an encoder, which '{preset.checkpoint}' does not have."
            raise ValueError(msg)
        self.max_tokens = _input_length(max_tokens, preset, self.network, tokenizer)
        self._inputs = InputBuilder(_fast_tokenizer(tokenizer, preset), self.max_tokens, _ending_id(preset, tokenizer))
        if preset.bidirectional:
            self._make_bidirectional()

    @property
    def dimension(self) -> int:
        """The dimension `d` of the embeddings."""
        config = self.network.config.get_text_config()
        return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)

    def encode(
        self,
        texts: Sequence[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        scaled: bool = True,
        progress_bar: bool = False,
    ) -> NDArray[np.float32]:
        """
        Embed texts.

        :param texts: The `n` texts. Quotes or other parts of the prompt in a text are passed on as they are.
        :param role: Role of the texts, "document" or "query".
        :param instruction: Instruction in place of the preset's instruction for queries; an empty one embeds queries as
            documents.
        :param scaled: Whether to scale embeddings to unit length if the preset does.
        :param progress_bar: Whether to show a progress bar.
        :returns: Shape `(n, d)`.
        :raises ValueError: The preset takes no instruction, the instruction leaves no room for a text, a text has half
            a surrogate pair, or is empty although the prompt is not pooled, or an embedding is not finite.
        :raises TypeError: A text is not a string, or `texts` is one.
        """
        inputs = self.inputs(texts, role, instruction)
        embeddings = np.zeros((len(inputs), self.dimension), dtype=np.float32)
        with (
            torch.inference_mode(),
            progress_of("Embedding", "texts", shown=progress_bar, total=len(inputs)) as progress,
        ):
            for rows in self._batches([len(each.ids) for each in inputs]):
                embeddings[rows] = self.pooled(self.batch([inputs[row] for row in rows])).cpu().numpy()
                progress.update(len(rows))
        check_finite(embeddings, str(self.network.dtype))
        return Preparation(normalize=self.preset.normalize and scaled)(embeddings)

    def inputs(self, texts: Sequence[str], role: Role = "document", instruction: str | None = None) -> list[Input]:
        """
        Return the model's inputs for texts; parameters and errors are those of `encode`.

        :raises ValueError: As `encode`, also if nothing of a text is left to be pooled.
        """
        check_texts(texts)
        inputs = self._inputs(list(texts), self.preset.prompt(role, instruction))
        for position, each in enumerate(inputs):
            if self._first_pooled(each) >= len(each.ids):
                msg = f"Text {position} is empty, so it has no hidden states to pool: leave it out."
                raise ValueError(msg)
        return inputs

    def batch(self, inputs: Sequence[Input]) -> Batch:
        """Return `b` inputs as a batch, padded on the right to the longest."""
        longest = max(len(each.ids) for each in inputs)
        tokens = torch.full((len(inputs), longest), self._pad)
        mask = torch.zeros((len(inputs), longest), dtype=torch.long)
        pooling_weights = torch.zeros((len(inputs), longest))
        for row, each in enumerate(inputs):
            length = len(each.ids)
            tokens[row, :length] = torch.tensor(each.ids)
            mask[row, :length] = 1
            pooling_weights[row, :length] = torch.from_numpy(self._pooling_weights(each))
        return Batch(tokens, mask, pooling_weights)

    def pooled(self, batch: Batch, network: Any = None) -> torch.Tensor:
        """
        Run a batch and pool its hidden states in float32; gradients flow through.

        :param batch: The `b` inputs.
        :param network: Network to run in place of the encoder's own, such as that network in a wrapper.
        :returns: Shape `(b, d)`, not yet scaled to unit length.
        """
        tokens, mask, pooling_weights = (part.to(self.device) for part in batch)
        # after the final norm, as the head reads them
        states = (network or self.network)(input_ids=tokens, attention_mask=mask).last_hidden_state
        if self.preset.pooling == "pooler":
            pooled: torch.Tensor = self.network.pooler(states)
        else:
            pooled = (pooling_weights.unsqueeze(1) @ states.float()).squeeze(1)
        return pooled.float()

    def _first_pooled(self, each: Input) -> int:
        return 0 if self.preset.pools_prompt else each.text_start

    def _pooling_weights(self, each: Input) -> NDArray[np.float32]:
        """Return the weight of each of an input's tokens in the embedding."""
        start, length = self._first_pooled(each), len(each.ids)
        weights = np.zeros(length, dtype=np.float32)
        match self.preset.pooling:
            case "last":
                weights[-1] = 1
            case "cls" | "pooler":
                weights[0] = 1
            case "mask":  # the prompt's: a text may have one of its own
                weights[length - 1 - each.ids[::-1].index(self._mask)] = 1
            case "mean":
                weights[start:] = 1
            case "weighted-mean":
                weights[start:] = np.arange(start, length) + 1
        normalized: NDArray[np.float32] = weights / weights.sum()
        return normalized

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield batches of rows, longest first, each within the maximum number of tokens."""
        order = np.argsort(lengths, kind="stable")[::-1].tolist()
        start = 0
        while start < len(order):
            size = max(1, self._batch_tokens // max(lengths[order[start]], 1))
            yield order[start : start + size]
            start += size

    def looks_ahead(self) -> bool:
        """Return whether a token's hidden state depends on later tokens, as in an encoder."""
        tokens = torch.tensor([[0, 1, 2], [0, 1, 3]], device=self.device)
        with torch.inference_mode():
            first = self.network(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[:, 0]
        return not torch.equal(first[0], first[1])

    def _make_bidirectional(self) -> None:
        """
        Let all tokens attend to each other.

        :raises ValueError: The model stays causal: the first token's state does not depend on the last token.
        """
        self.network.config.is_causal = False
        if not self.looks_ahead():
            msg = (
                f"'{self.preset.checkpoint}' needs attention in both directions, which this version of transformers "
                f"cannot give a model of the type '{self.network.config.model_type}'."
            )
            raise ValueError(msg)


def _load(
    preset: Preset, checkpoint: str, dtype: torch.dtype, token: str | None
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a model without its head, with adapters merged, and its tokenizer; no code of the checkpoint is run."""
    checkpoint = unpacked(checkpoint)
    try:
        base = base_of(checkpoint, token)
        own_tokenizer = base is None or Checkpoint.open(checkpoint).has_tokenizer
        adapters = (*preset.adapters, *(() if base is None else (checkpoint,)))
        model, loading = AutoModel.from_pretrained(
            base or checkpoint,
            dtype=dtype,
            token=token,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below
        )
        tokens_of = checkpoint if own_tokenizer else str(base)
        check_tokenizer(tokens_of)
        tokenizer = AutoTokenizer.from_pretrained(tokens_of, token=token, trust_remote_code=False)
    except Exception as error:  # broken files raise a dozen types of errors
        lines = str(error).strip().splitlines() or ["a file of it is cut off"]
        msg = f"'{checkpoint}' is not a language model that can be loaded: {type(error).__name__}: {lines[0]}"
        raise ValueError(msg) from error
    # many encoders are saved without their pooler, which only some embedders use
    if missing := [name for name in loading["missing_keys"] if preset.pooling == "pooler" or "pooler" not in name]:
        msg = f"The checkpoint '{checkpoint}' lacks weights of its model: {', '.join(sorted(missing)[:3])}."
        raise ValueError(msg)
    if others := sorted(name for name, *_ in loading["mismatched_keys"]):
        msg = f"The weights of '{checkpoint}' have other shapes than its config.json says: {', '.join(others[:3])}."
        raise ValueError(msg)
    if model.config.is_encoder_decoder:
        msg = f"'{checkpoint}' is an encoder with a decoder; only encoders and decoders alone can be run."
        raise ValueError(msg)
    for adapter in adapters:
        model = with_adapter(model, adapter, token)
    model.config.use_cache = False
    return model, tokenizer


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
    if name not in _DTYPES:
        msg = f"'{name}' is not a type of weights that models can be run with: use {', '.join(_DTYPES)}."
        raise ValueError(msg)
    return _DTYPES[name]


def _input_length(
    requested: int | None, preset: Preset, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> int:
    """Return the maximum length of inputs: the requested one, or that of the preset within the model's window."""
    positions = next((each for name, each in model.named_modules() if name.endswith("position_embeddings")), None)
    padding = getattr(positions, "padding_idx", None)  # RoBERTa and MPNet count positions from the one after it
    config = model.config.get_text_config()
    window = int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)
    window = min(window - (0 if padding is None else padding + 1), tokenizer.model_max_length)
    if requested is not None and not 0 < requested <= window:
        msg = f"max_tokens must be between 1 and {window}, the window of '{preset.checkpoint}', but it is {requested}."
        raise ValueError(msg)
    return requested or min(preset.max_tokens or window, window)


def _fast_tokenizer(tokenizer: PreTrainedTokenizerBase, preset: Preset) -> Tokenizer:
    """Return the fast tokenizer, which transformers wraps."""
    if not tokenizer.is_fast:
        msg = f"The tokenizer of '{preset.checkpoint}', {type(tokenizer).__name__}, has no tokenizer.json."
        raise ValueError(msg)
    # without files transformers makes a tokenizer without a vocabulary
    if not set(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)) - set(tokenizer.all_special_tokens):
        msg = f"The checkpoint '{preset.checkpoint}' has no tokenizer: put the files of its tokenizer there."
        raise ValueError(msg)
    fast: Tokenizer = tokenizer.backend_tokenizer
    return fast


def _ending_id(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that inputs end with, if the preset has one."""
    if preset.ending is None:
        return None
    ending = tokenizer.get_vocab().get(preset.ending)
    if ending is None:
        msg = f"Inputs of '{preset.checkpoint}' end with '{preset.ending}', a token that its tokenizer does not have."
        raise ValueError(msg)
    return int(ending)
