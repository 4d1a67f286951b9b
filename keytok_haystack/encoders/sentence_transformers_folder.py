# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Make a checkpoint's folder one that sentence-transformers loads and embeds with as `LanguageModelEncoder` does."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from keytok_haystack.encoders.inputs import InputBuilder
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.presets import Preset

_POOLING_MODES = {"last": "lasttoken", "mean": "mean", "weighted-mean": "weightedmean", "cls": "cls"}
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
_TEXTS = ("flow", 'The "lift" of a wing.', "Auftrieb: größer 🚀,\nschneller")


class UnsupportedEmbedderError(ValueError):
    """An embedder does what the modules of sentence-transformers cannot."""


def write_modules(folder: Path, encoder: LanguageModelEncoder) -> None:
    """
    Write the modules of sentence-transformers (5.6 or later) that embed as an encoder does, next to its checkpoint.

    What is before a text becomes the prompts "document" and "query"; documents' is that of a plain `encode`, too. What
    is after it becomes a chat template, whose end sentence-transformers keeps where it cuts a text. It stands with the
    modules: the checkpoint's own chat template remains, and is not applied.

    Texts that are too long are cut by tokens here, and by characters in `InputBuilder`: where other tokens come out
    beside the cut, about one more or less of the text is left. The weights are of the type that config.json says.

    :param folder: The folder with the encoder's network and tokenizer, as `save_pretrained` writes them.
    :param encoder: What the modules are to embed as, with its own instruction for queries.
    :raises UnsupportedEmbedderError: sentence-transformers cannot embed so, and why; nothing is written.
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
        _write(folder / "config.json", config | {"is_causal": False})
    pooling = {"embedding_dimension": encoder.dimension, "pooling_mode": _POOLING_MODES[preset.pooling]}
    modules = [("Transformer", "", transformer), ("Pooling", "1_Pooling", pooling)]
    if preset.normalize:
        modules.append(("Normalize", "2_Normalize", {}))
    for name, path, config in modules:
        _write(folder / path / ("sentence_bert_config.json" if name == "Transformer" else "config.json"), config)
    model = {
        "model_type": "SentenceTransformer",
        "prompts": {"document": document.before, "query": query.before},
        "default_prompt_name": "document" if document.before else None,
        "similarity_fn_name": "cosine",
    }
    _write(folder / "config_sentence_transformers.json", model)
    # last, since it makes the folder one of sentence-transformers
    kinds = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{name}"}
        for idx, (name, path, _) in enumerate(modules)
    ]
    _write(folder / "modules.json", kinds)


def _unsupported(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return what sentence-transformers cannot do, if there is something."""
    document, query = preset.prompt("document"), preset.prompt("query")
    if preset.pooling not in _POOLING_MODES:
        return f"it has no pooling '{preset.pooling}'"
    if not preset.pools_prompt:
        return "the mean leaves out the prompt, which is told there by another rule"
    if document.apart or query.apart:
        return "the prompt is tokenized apart from the text, and there they are tokenized as a whole"
    if document.after != query.after:
        return "documents and queries are followed by different words, for which it has only one chat template"
    if not tokenizer.all_special_tokens:
        return "the tokenizer has no special token, with one of which texts would be padded there"
    return None


def _chat_template(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """
    Return a chat template that puts something after a text and its prompt, which come as messages; None if nothing is.

    A chat template has to spell out the tokens that a tokenizer else adds itself.

    :raises UnsupportedEmbedderError: The tokenizer makes other tokens of a text if they are spelled out.
    """
    opening, closing = _added_tokens(tokenizer)
    ending = [preset.ending] if preset.ending and closing[-1:] != [preset.ending] else []
    prompt = preset.prompt("document")
    if not prompt.after and not ending:
        return None
    after = "".join([prompt.after, *closing, *ending])
    # some tokenizers of the SentencePiece kind put a space before a text, but not if a token is spelled out before it
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
    """Return the tokens that a tokenizer itself puts before and after a text."""
    encoding = tokenizer.backend_tokenizer.encode("a")
    added = encoding.special_tokens_mask
    return encoding.tokens[: added.index(0)], encoding.tokens[len(added) - added[::-1].index(0) :]


def _gives_same_tokens(preset: Preset, tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> bool:
    """Whether texts between two strings become the tokens that an encoder would make of them."""
    ending = tokenizer.backend_tokenizer.token_to_id(preset.ending) if preset.ending else None
    build = InputBuilder(tokenizer.backend_tokenizer, 10**6, ending)
    for prompt in (preset.prompt("document"), preset.prompt("query")):
        spelled = [f"{before}{prompt.before}{text}{after}" for text in _TEXTS]
        ids = tokenizer(spelled, add_special_tokens=False)["input_ids"]
        if ids != [each.ids for each in build(list(_TEXTS), prompt)]:
            return False
    return True


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
