# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Modules of sentence-transformers for a checkpoint, which embed as `LanguageModelEncoder` does."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from keytok_haystack.encoders.inputs import InputBuilder
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.presets import Preset
from keytok_haystack.utils.files import write_json

_POOLING_MODES = {"last": "lasttoken", "mean": "mean", "weighted-mean": "weightedmean", "cls": "cls"}
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
_TEXTS = ("flow", 'The "lift" of a wing.', "Auftrieb: größer 🚀,\nschneller")


class UnsupportedEmbedderError(ValueError):
    """An embedder that the modules of sentence-transformers cannot run."""


def write_modules(folder: Path, encoder: LanguageModelEncoder) -> None:
    """
    Write the modules of sentence-transformers that embed as an encoder does, next to its checkpoint.

    The text before a text to embed becomes the prompts "document" and "query"; a plain `encode` uses that of documents.
    The text after it becomes a chat template, whose end sentence-transformers keeps when it truncates. The template is
    stored with the modules: the checkpoint's own chat template remains, and is not applied.

    Texts that are too long are truncated by tokens here, and by characters in `InputBuilder`: if the tokens beside the
    cut differ, about one token more or less of the text is left. The type of the weights is that in config.json.

    :param folder: Folder with the encoder's network and tokenizer, as `save_pretrained` writes them.
    :param encoder: Encoder that the modules embed as, with the preset's instruction for queries.
    :raises UnsupportedEmbedderError: sentence-transformers cannot embed like that; nothing is written.
    """
    preset, tokenizer = encoder.preset, encoder.tokenizer
    if reason := _unsupported(preset, tokenizer):
        msg = f"sentence-transformers cannot embed as this embedder does: {reason}."
        raise UnsupportedEmbedderError(msg)
    document, query = preset.prompt("document"), preset.prompt("query")
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": _FORWARD},
        "module_output_name": "token_embeddings",
        "processor_kwargs": {
            "model_max_length": encoder.max_tokens,
            "pad_token": next(token for token in (tokenizer.pad_token, *tokenizer.all_special_tokens) if token),
            "padding_side": "right",  # on the left, learned positions would count from the padding
            "truncation_side": "right",
        },
    }
    if template := _chat_template(preset, tokenizer):
        transformer["modality_config"] = {"text": _FORWARD, "message": {**_FORWARD, "format": "flat"}}
        transformer["processing_kwargs"] = {"chat_template": {"chat_template": template}}
    if preset.bidirectional:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        write_json(folder / "config.json", config | {"is_causal": False})
    pooling = {"embedding_dimension": encoder.dimension, "pooling_mode": _POOLING_MODES[preset.pooling]}
    modules = [("Transformer", "", transformer), ("Pooling", "1_Pooling", pooling)]
    if preset.normalize:
        modules.append(("Normalize", "2_Normalize", {}))
    for name, path, config in modules:
        write_json(folder / path / ("sentence_bert_config.json" if name == "Transformer" else "config.json"), config)
    model = {
        "model_type": "SentenceTransformer",
        "prompts": {"document": document.before, "query": query.before},
        "default_prompt_name": "document" if document.before else None,
        "similarity_fn_name": "cosine",
    }
    write_json(folder / "config_sentence_transformers.json", model)
    # last, since it makes the folder one of sentence-transformers
    kinds = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{name}"}
        for idx, (name, path, _) in enumerate(modules)
    ]
    write_json(folder / "modules.json", kinds)


def _unsupported(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the reason why sentence-transformers cannot run a preset, if there is one."""
    document, query = preset.prompt("document"), preset.prompt("query")
    if preset.pooling not in _POOLING_MODES:
        return f"it has no pooling '{preset.pooling}'"
    if not preset.pools_prompt:
        return "the mean leaves out the prompt, which it finds by another rule"
    if document.apart or query.apart:
        return "the prompt is tokenized separately from the text, and it tokenizes them as a whole"
    if document.after != query.after:
        return "documents and queries are followed by different words, for which it has only one chat template"
    if not tokenizer.all_special_tokens:
        return "the tokenizer has no special token, which it needs for padding"
    return None


def _chat_template(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """
    Return a chat template that adds what follows a text to its prompt and the text, which come as messages.

    A chat template has to spell out the tokens that a tokenizer adds by its own rules.

    :returns: The template; None if nothing follows a text.
    :raises UnsupportedEmbedderError: The tokenizer makes other tokens of a text if those are spelled out.
    """
    opening, closing = _added_tokens(tokenizer)
    ending = [preset.ending] if preset.ending and closing[-1:] != [preset.ending] else []
    prompt = preset.prompt("document")
    if not prompt.after and not ending:
        return None
    after = "".join([prompt.after, *closing, *ending])
    # some tokenizers like SentencePiece add a space before a text, but not after a token that is spelled out
    for before in ("".join(opening), "".join([*opening, " "])):
        if _gives_same_tokens(preset, tokenizer, before, after):
            parts = [f"{{{{ {part!r} }}}}" if part else "" for part in (before, after)]
            return "{% for each in messages %}{{ each['content'] }}{% endfor %}".join(parts)
    msg = (
        "sentence-transformers cannot embed as this embedder does: the tokenizer makes other tokens of a text "
        f"between '{''.join(opening)}' and '{after}' if these are spelled out."
    )
    raise UnsupportedEmbedderError(msg)


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[str]]:
    """Return the tokens that a tokenizer adds before and after a text."""
    encoding = tokenizer.backend_tokenizer.encode("a")
    added = encoding.special_tokens_mask
    return encoding.tokens[: added.index(0)], encoding.tokens[len(added) - added[::-1].index(0) :]


def _gives_same_tokens(preset: Preset, tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> bool:
    """Return whether texts between two strings become the same tokens as in an encoder."""
    ending = tokenizer.backend_tokenizer.token_to_id(preset.ending) if preset.ending else None
    build = InputBuilder(tokenizer.backend_tokenizer, 10**6, ending)
    for prompt in (preset.prompt("document"), preset.prompt("query")):
        spelled = [f"{before}{prompt.before}{text}{after}" for text in _TEXTS]
        ids = tokenizer(spelled, add_special_tokens=False)["input_ids"]
        if ids != [each.ids for each in build(list(_TEXTS), prompt)]:
            return False
    return True
