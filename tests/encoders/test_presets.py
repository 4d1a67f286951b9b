# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Every preset, compared with what its authors do, written down here anew: one text at a time, no padding."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import TEXTS

from keytok_haystack.encoders import PRESETS
from keytok_haystack.encoders.language_model import LanguageModelEncoder

SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
OWN = "Retrieve what contradicts the claim"
TEXTS = (
    *TEXTS,
    "lift",
    "  a space and\na line\n",
    "\nbegun by a line",
    "a [MASK] of its own",
    'the prompt\'s own quotes: lift" means in one word:"',
    'with "quotes" and {braces} {0} and {instruction}',
)


@dataclass
class Reference:
    """A checkpoint as transformers runs it; `states` are the last hidden states of one input, float64."""

    folder: Path
    bidirectional: bool = False

    def __post_init__(self) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.model = transformers.AutoModel.from_pretrained(self.folder, attn_implementation="eager").eval()

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    def states(self, ids: list[int]) -> np.ndarray:
        hides_nothing = torch.zeros(1, 1, len(ids), len(ids)) if self.bidirectional else None
        with torch.no_grad():
            output = self.model(torch.tensor([ids]), attention_mask=hides_nothing, output_hidden_states=True)
        return output.hidden_states[-1][0].double().numpy()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.sqrt((vector**2).sum())


def prompt_eol(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    return model.states(model.ids(f'This sentence : "{text}" means in one word:"'))[-1]


def prompt_bert(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    ids = model.ids(f'This sentence : "{text}" means [MASK].')
    return model.states(ids)[np.flatnonzero(np.array(ids) == model.tokenizer.mask_token_id)[-1]]


def sgpt(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    return weighted_mean(model.states(model.ids(text)))


def sgpt_brackets(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    """The brackets are put around the tokens, since within the text they would become part of other tokens."""
    begin, end = "{}" if instruction is None else "[]"
    ids = model.ids(text)
    ids.insert(0, model.ids(begin)[0])
    ids.append(model.ids(end)[0])
    return weighted_mean(model.states(ids))


def weighted_mean(states: np.ndarray) -> np.ndarray:
    weights = np.arange(1, len(states) + 1)
    return (states * weights[:, None]).sum(axis=0) / weights.sum()


def gritlm(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    """As many tokens are left out as the prompt has when it is tokenized alone."""
    prompt = f"<|user|>\n{instruction}\n<|embed|>\n" if instruction else "<|embed|>\n"
    return unit(model.states(model.ids(prompt + text))[len(model.ids(prompt)) :].mean(axis=0))


def llm2vec(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    """As many tokens are averaged as the text has when it is tokenized with what is after it, counted from the end."""
    states = model.states(model.ids(f"[INST] {instruction + ' ' if instruction else ''}{text} [/INST]"))
    return states[-len(model.ids(f"{text} [/INST]", special=False)) :].mean(axis=0)


def instructed(template: str, ending: str | None) -> Callable[[Reference, str, str | None], np.ndarray]:
    """The last token's state; of checkpoints whose tokenizer does not add the ending, it is added."""

    def embed(model: Reference, text: str, instruction: str | None) -> np.ndarray:
        ids = model.ids(template.format(instruction) + text if instruction else text)
        ids += [] if ending is None else [model.tokenizer.convert_tokens_to_ids(ending)]
        return unit(model.states(ids)[-1])

    return embed


e5_mistral = instructed("Instruct: {}\nQuery: ", "</s>")
gte_qwen2 = instructed("Instruct: {}\nQuery: ", "<|endoftext|>")
qwen3 = instructed("Instruct: {}\nQuery:", None)


def mean(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    return model.states(model.ids(text)).mean(axis=0)


def unit_mean(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    return unit(mean(model, text, instruction))


def e5(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    return unit_mean(model, ("passage: " if instruction is None else "query: ") + text, None)


def simcse(model: Reference, text: str, instruction: str | None) -> np.ndarray:
    with torch.no_grad():
        return model.model(torch.tensor([model.ids(text)])).pooler_output[0].double().numpy()


@dataclass(frozen=True)
class Authors:
    """
    :param architecture: That of the checkpoint.
    :param embed: Embeds a query if there is an instruction, else a document.
    :param instruction: What queries are embedded with by default; empty if there is no place for an instruction.
    """

    architecture: str
    embed: Callable[[Reference, str, str | None], np.ndarray]
    bidirectional: bool = False
    instruction: str = ""


AUTHORS = {
    "prompt-eol": Authors("llama", prompt_eol),
    "opt-eol": Authors("opt", prompt_eol),
    "opt-eol-cse": Authors("opt-350m", prompt_eol),
    "llama-eol": Authors("llama", prompt_eol),
    "llama-eol-cse": Authors("llama", prompt_eol),
    "sgpt-nli": Authors("gpt-neo", sgpt),
    "sgpt-msmarco": Authors("gpt-neo", sgpt_brackets),
    "gritlm-7b": Authors("mistral", gritlm, True, SEARCH),
    "llm2vec-unsup": Authors("mistral-instruct", llm2vec, True, f"{SEARCH}:"),
    "llm2vec-sup": Authors("mistral-instruct", llm2vec, True, f"{SEARCH}:"),
    "e5-mistral": Authors("e5-mistral", e5_mistral, False, SEARCH),
    "gte-qwen2-1.5b": Authors("qwen2", gte_qwen2, True, SEARCH),
    "gte-qwen2-7b": Authors("qwen2", gte_qwen2, True, SEARCH),
    "qwen3-embedding-0.6b": Authors("qwen3", qwen3, False, SEARCH),
    "qwen3-embedding-4b": Authors("qwen3", qwen3, False, SEARCH),
    "qwen3-embedding-8b": Authors("qwen3-8b", qwen3, False, SEARCH),
    "prompt-bert": Authors("bert", prompt_bert),
    "prompt-bert-unsup": Authors("bare-bert", prompt_bert),
    "prompt-bert-sup": Authors("bare-bert", prompt_bert),
    "simcse-sup": Authors("bare-bert", simcse),
    "contriever": Authors("bare-bert", mean),
    "gte-base": Authors("bare-bert", unit_mean),
    "e5-base-v2": Authors("bare-bert", e5),
    "all-mpnet-base-v2": Authors("mpnet", unit_mean),
}


@pytest.fixture(scope="module", params=PRESETS)
def preset(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> tuple[Authors, Reference, Any]:
    authors = AUTHORS[request.param]
    folder = tiny(authors.architecture)
    return authors, Reference(folder, authors.bidirectional), LanguageModelEncoder(f"{request.param}:{folder}")


def expected(authors: Authors, model: Reference, instruction: str | None) -> np.ndarray:
    embeddings = np.stack([authors.embed(model, text, instruction) for text in TEXTS])
    assert embeddings.std(axis=0).mean() > 0.02
    return embeddings


def test_documents_are_embedded_as_the_authors_do(preset):
    authors, model, encoder = preset
    embeddings = encoder.encode(TEXTS)
    np.testing.assert_allclose(embeddings, expected(authors, model, None), atol=1e-5, rtol=1e-4)
    assert embeddings.dtype == np.float32
    assert encoder.dimension == embeddings.shape[1]


def test_queries_are_embedded_as_the_authors_do(preset):
    authors, model, encoder = preset
    queries = encoder.encode(TEXTS, "query")
    np.testing.assert_allclose(queries, expected(authors, model, authors.instruction), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_an_instruction_takes_the_place_of_the_default(preset):
    authors, model, encoder = preset
    if not authors.instruction:
        with pytest.raises(ValueError, match="takes no instruction: leave it out"):
            encoder.encode(TEXTS, "query", OWN)
        np.testing.assert_array_equal(encoder.encode(TEXTS, "query", ""), encoder.encode(TEXTS, "query"))
        return
    own = expected(authors, model, OWN)
    for role in ("query", "document"):
        np.testing.assert_allclose(encoder.encode(TEXTS, role, OWN), own, atol=1e-5, rtol=1e-4)
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query", ""), encoder.encode(TEXTS))
