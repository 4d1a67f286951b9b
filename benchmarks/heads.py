# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Time and peak memory of reading a head out of a large sharded checkpoint.

    python benchmarks/heads.py [--rows 128256 --dimension 4096 --folder FOLDER]

It generates a checkpoint of random numbers in bfloat16 with a head of Llama 3's size (2.5 GB of disk with the input
embeddings and a layer), and a byte-level tokenizer with the same number of tokens. One process reads the head, another
reads and calibrates it. Each reports the seconds after the imports and its peak memory, Python and libraries included.
Linux only, for the peak memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from keytok_haystack import calibrate, from_language_model

HERE = Path(__file__).resolve().parent
EMBEDDINGS = 1000  # for calibration


def write_tokenizer(path: Path, size: int) -> None:
    """Write a byte-level BPE tokenizer of random words, each a feature of its own, which takes the most memory."""
    random = np.random.default_rng(0)
    vocabulary = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    pieces = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    while len(vocabulary) < size:
        left, right = (pieces[i] for i in random.integers(min(len(pieces), 1000), size=2))
        if len(left + right) > 12 or left + right in vocabulary:
            continue
        pieces.append(left + right)
        vocabulary[left + right] = len(vocabulary)
        merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


def random_rows(n: int, dimension: int) -> Iterator[NDArray[np.uint16]]:
    """Yield normally distributed numbers as bfloat16, in blocks that differ only in their order."""
    random = np.random.default_rng(1)
    values = random.normal(scale=0.02, size=1 << 22).astype(np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    left = n * dimension
    while left > 0:
        yield np.roll(bits, int(random.integers(len(bits))))[:left]
        left -= len(bits)


def write_checkpoint(folder: Path, rows: int, dimension: int) -> None:
    """Write a checkpoint of three shards: input embeddings, a layer, the head."""
    write_tokenizer(folder / "tokenizer.json", rows)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False})
    )
    tensors = {
        "model.embed_tokens.weight": (rows, dimension),
        "model.layers.0.mlp.up_proj.weight": (14336, dimension),
        "lm_head.weight": (rows, dimension),
    }
    files = {name: f"model-{i:05}-of-00003.safetensors" for i, name in enumerate(tensors, start=1)}
    for name, shape in tensors.items():
        entry = {"dtype": "BF16", "shape": shape, "data_offsets": [0, 2 * shape[0] * shape[1]]}
        header = json.dumps({name: entry}).encode()
        with (folder / files[name]).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for block in random_rows(*shape):
                block.tofile(file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def peak_mib() -> float:
    """Return the peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, *, calibrated: bool) -> dict[str, Any]:
    """Read the head, and calibrate it if asked."""
    before = peak_mib()
    started = time.perf_counter()
    model = from_language_model(folder)
    seconds = {"read": time.perf_counter() - started}
    if calibrated:
        embeddings = np.random.default_rng(2).normal(size=(EMBEDDINGS, model.dimension)) + 1
        started = time.perf_counter()
        model = calibrate(model, embeddings)
        seconds["calibrate"] = time.perf_counter() - started
    return {
        "features": len(model.decoder),
        "decoder_mib": model.decoder.weight.nbytes / 2**20,
        "seconds": seconds,
        "imports_mib": before,
        "peak_mib": peak_mib(),
    }


def in_child(folder: Path, *options: str) -> dict[str, Any]:
    """Measure in a separate process."""
    command = [sys.executable, __file__, "--measure", str(folder), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(results: dict[str, Any]) -> str:
    lines = ["| | seconds | peak memory |", "| --- | ---: | ---: |"]
    for name, result in results["steps"].items():
        lines.append(f"| {name} | {sum(result['seconds'].values()):.1f} | {result['peak_mib']:,.0f} MiB |")
    first = next(iter(results["steps"].values()))
    sizes = (
        f"{results['rows']:,} x {results['dimension']:,} bfloat16 ({results['head_mib']:,.0f} MiB of "
        f"{results['checkpoint_mib']:,.0f}) become {first['features']:,} features in float32 "
        f"({first['decoder_mib']:,.0f} MiB). Imports alone take {first['imports_mib']:,.0f} MiB."
    )
    return "\n".join([*lines, "", sizes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128_256)
    parser.add_argument("--dimension", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="Folder for the checkpoint; by default a temporary one.")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "heads.json")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--calibrate", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, calibrated=arguments.calibrate)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        write_checkpoint(folder, arguments.rows, arguments.dimension)
        results = {
            "rows": arguments.rows,
            "dimension": arguments.dimension,
            "head_mib": 2 * arguments.rows * arguments.dimension / 2**20,
            "checkpoint_mib": sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20,
            "steps": {
                "read the head": in_child(folder),
                "read and calibrate": in_child(folder, "--calibrate"),
            },
        }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
