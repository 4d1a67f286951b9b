# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Speed of `LanguageModelEncoder` next to a plain run of sentence-transformers with the same model and texts.

    python benchmarks/encoders.py

SmolLM2-135M-Instruct with PromptEOL embeds documents of Cranfield, drawn anew for each pair of runs, which alternate in
order. sentence-transformers gets the prompts as parts of the texts and pools the last token. The ratio of the two
times is printed with its 95 % confidence interval (t, of its logarithm), and written to
benchmarks/results/encoders.json.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from language_models import smollm2
from scipy import stats
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tqdm import tqdm

from keytok_haystack.encoders import find_preset, head_source
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.evaluation import Collection

ROOT = Path(__file__).resolve().parent.parent
MAX_TOKENS = 160


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--texts", type=int, default=24, help="Number of texts that each run embeds.")
    arguments = parser.parse_args()
    embedder = smollm2()
    preset = find_preset(embedder)
    assert preset is not None
    ours = LanguageModelEncoder(embedder, max_tokens=MAX_TOKENS)
    with tempfile.TemporaryDirectory() as plain:
        shutil.copytree(head_source(embedder), plain, dirs_exist_ok=True)
        Path(plain, "chat_template.jinja").unlink()  # sentence-transformers would apply the chat template to texts
        transformer = Transformer(plain, max_seq_length=MAX_TOKENS)
    theirs = SentenceTransformer(modules=[transformer, Pooling(ours.dimension, pooling_mode="lasttoken")], device="cpu")
    documents = list(Collection.load(ROOT / "examples/cranfield", "test").documents.values())
    # short enough for both, since sentence-transformers would cut off the end of the prompt
    bodies = [" ".join(text.split()[:60]) for text in documents]
    random, prompt = np.random.default_rng(0), preset.document
    ratios, rates = [], []
    for pair in tqdm(range(arguments.pairs + 1), desc="Pairs"):
        texts = [bodies[i] for i in random.choice(len(bodies), arguments.texts, replace=False)]
        whole = [f"{prompt.before}{text}{prompt.after}" for text in texts]
        runs = {
            "ours": lambda texts=texts: ours.encode(texts),
            "theirs": lambda whole=whole: theirs.encode(whole, batch_size=32, show_progress_bar=False),
        }
        if pair == 0:  # warm-up, and a check that both do the same
            np.testing.assert_allclose(runs["ours"](), runs["theirs"](), atol=2e-3)
            continue
        order = list(runs) if pair % 2 else list(runs)[::-1]
        took = {name: seconds(runs[name]) for name in order}
        ratios.append(took["ours"] / took["theirs"])
        rates.append(arguments.texts / took["ours"])
    logs = np.log(ratios)
    low, high = stats.t.interval(0.95, len(logs) - 1, loc=logs.mean(), scale=stats.sem(logs))
    report = {
        "model": Path(embedder).name,
        "pairs": arguments.pairs,
        "texts": arguments.texts,
        "texts_per_second": round(float(np.median(rates)), 1),
        "time_ratio": round(float(np.exp(logs.mean())), 3),
        "interval": [round(float(np.exp(bound)), 3) for bound in (low, high)],
    }
    (ROOT / "benchmarks/results/encoders.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
