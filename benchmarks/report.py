# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Rewrite the tables of README.md and docs/ from the committed results and the code.

    python benchmarks/report.py [--check]

A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`. The tables of quality and cost come from
docs/research/results/*.json, which `keytok evaluate --json` writes, others from benchmarks/results, the table of
presets from the library, a component's parameters from its docstring, and a command's options from its help. With
--check nothing is written, and the exit code is 1 if a page is out of date.
"""

import argparse
import inspect
import json
import math
import re
import sys
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import typer
from haystack.utils import Secret
from haystack_integrations.components.embedders import keytok as embedders
from haystack_integrations.components.retrievers import keytok as retrievers

from keytok_haystack.cli.app import SUMMARIES, command_of
from keytok_haystack.encoders import overview
from keytok_haystack.evaluation.tables import LABELS, SUMMARY, markdown_table, marks

ROOT = Path(__file__).resolve().parent.parent
FILES = {"speed": "embedded.cranfield.md", "language-models": "language_models.md", "training": "training.md"}
"""Tables that are files in benchmarks/results."""
COMPONENTS = {name: getattr(module, name) for module in (embedders, retrievers) for name in module.__all__}
COMMANDS = {f"keytok-{name}": command_of(name) for name in SUMMARIES}
PARAMETER = re.compile(r"^:param (\w+):(.*?)(?=^:|\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^<!-- table: ([\w-]+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)

PARTS = ("all", "half")
TITLES = {"cranfield": "Cranfield", "cisi": "CISI", "scifact": "SciFact"}
EMBEDDERS = {"": ("cranfield", "cisi", "scifact"), "mpnet-": ("cranfield", "cisi")}
"""Prefix of an embedder's files and tables: its collections."""
BOLD = ("key_tokens", "hybrid")
OUT_OF_SAMPLE = ("key_tokens", "hybrid", "dense_bm25_key_tokens_rrf")

Report = dict[str, Any]
"""The JSON that `keytok evaluate --json` writes."""
Column = dict[str, str]
"""The column of a collection in a table: `{label of the row: cell}`."""


def summary(report: Report) -> Column:
    measured = report["systems"]
    half = next(entry for entry in out_of_sample_of(report, "key_tokens") if entry["fitted_on"] == "a random half")
    column = {}
    for name in SUMMARY:
        column[bold(name)] = decimal(measured[name]["nDCG@10"])
        if name == "key_tokens":
            column["key tokens, fitted to a random half of the documents"] = decimal(half["nDCG@10"])
    return column


def systems(report: Report) -> Column:
    return {
        "documents": f"{report['documents']:,}",
        "judged queries": f"{report['queries']:,}",
        **{bold(name): quality(report, measured) for name, measured in report["systems"].items()},
    }


def controls(report: Report) -> Column:
    changed = {LABELS[name]: quality(report, measured) for name, measured in report["controls"].items()}
    return {bold("key_tokens"): quality(report, report["systems"]["key_tokens"]), **changed}


def out_of_sample(report: Report) -> Column:
    column = {}
    for name in OUT_OF_SAMPLE:
        column[f"{bold(name)}, fitted to all documents"] = quality(report, report["systems"][name])
        for entry in out_of_sample_of(report, name):
            fitted_on = TITLES.get(entry["fitted_on"], entry["fitted_on"])
            column[f"{LABELS[name]}, fitted to {fitted_on}"] = quality(report, entry)
    return column


def sizes(report: Report) -> Column:
    # first all sizes of documents, then all of queries
    points = sorted(report["sweep"], key=lambda point: (point["m_query"] != report["m_query"], point["k_document"]))
    return {f"K = {point['k_document']}, M = {point['m_query']}": quality(report, point) for point in points}


def cost(report: Report) -> Column:
    parts = {"embed": "embedding all documents", "fit": "fitting", "refine": "refining", "project": "projecting all"}
    return {
        **{name: f"{report['seconds'][part]:.1f} s" for part, name in parts.items() if report["seconds"][part]},
        "all but embedding, of embedding": f"{share_of_embedding(report):.1%}",
        **{
            f"index in memory, {LABELS[name]}": f"{report['systems'][name]['bytes_per_document']:,.0f} B/document"
            for name in ("dense", "bm25", "key_tokens")
        },
    }


def ratios(report: Report) -> dict[str, float]:
    """Return the nDCG@10 of each decoder and fusion in units of the nDCG@10 of dense vectors."""
    dense = report["systems"]["dense"]["nDCG@10"]
    kept = {
        f"{LABELS[name]}, fitted to a random half, in units of fitted to all": entry["nDCG@10"]
        / report["systems"][name]["nDCG@10"]
        for name in OUT_OF_SAMPLE
        for entry in out_of_sample_of(report, name)
        if entry["fitted_on"] == "a random half"
    }
    return {
        **{f"key tokens, {d['decoder']}, K = {d['k_document']}": d["nDCG@10"] / dense for d in report["decoders"]},
        **{
            LABELS[name]: measured["nDCG@10"] / dense
            for name, measured in report["systems"].items()
            if name not in ("dense", "key_tokens")
        },
        **{
            f"{LABELS[name]}, refined": measured["nDCG@10"] / dense
            for name, measured in report["refined"].items()
            if name != "key_tokens"
        },
        **kept,
    }


def out_of_sample_of(report: Report, system: str) -> list[dict[str, Any]]:
    return [entry for entry in report["out_of_sample"] if entry["system"] == system]


def bold(name: str) -> str:
    return f"**{LABELS[name]}**" if name in BOLD else LABELS[name]


def decimal(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def quality(report: Report, measured: dict[str, Any]) -> str:
    dense = report["systems"]["dense"]["nDCG@10"]
    return f"{decimal(measured['nDCG@10'])} ({measured['nDCG@10'] / dense:.2f}){marks(measured['p_values'])}"


def share_of_embedding(report: Report) -> float:
    seconds = {part: value or 0.0 for part, value in report["seconds"].items()}
    return (seconds["fit"] + seconds["refine"] + seconds["project"]) / seconds["embed"]


def across(corner: str, column_of: Callable[[Report], Column], reports: dict[str, Report]) -> list[str]:
    """Return a table with a column for each collection, whose cell is empty where the collection lacks a row."""
    columns = [column_of(report) for report in reports.values()]
    labels: list[str] = []
    for column in columns:
        place = 0
        for label in column:  # a row that other columns lack keeps its place after the row before it
            if label not in labels:
                labels.insert(place, label)
            place = labels.index(label) + 1
    rows = ([label, *(column.get(label, "") for column in columns)] for label in labels)
    return markdown_table((corner, *(TITLES[name] for name in reports)), rows)


def with_mean(corner: str, column_of: Callable[[Report], dict[str, float]], reports: dict[str, Report]) -> list[str]:
    """Return a table of numbers with their mean over the collections and their minimum."""
    columns = [column_of(report) for report in reports.values()]
    rows = []
    for label in columns[0]:
        if not all(label in column for column in columns):  # such as a SPLADE, which is not measured on all
            continue
        values = [column[label] for column in columns]
        rows.append([label, *(f"{value:.3f}" for value in (*values, sum(values) / len(values), min(values)))])
    return markdown_table((corner, *(TITLES[name] for name in reports), "mean", "least"), rows)


TABLES: dict[str, Callable[[dict[str, Report]], list[str]]] = {
    "summary": partial(across, "nDCG@10, all-MiniLM-L6-v2", summary),
    "systems": partial(across, "nDCG@10 (of dense)", systems),
    "ratios": partial(with_mean, "nDCG@10 in units of dense", ratios),
    "controls": partial(across, "nDCG@10 (of dense)", controls),
    "out-of-sample": partial(across, "nDCG@10 (of dense)", out_of_sample),
    "sizes": partial(across, "nDCG@10 (of dense)", sizes),
    "cost": partial(across, "", cost),
}


def presets() -> list[str]:
    """Return a table of the presets of language models."""
    rows = ((f"`{name}`", *rest) for name, *rest in overview())
    return markdown_table(("preset", "checkpoint", "pooling", "attention", "head of"), rows, text_columns=5)


def parameters(component: type) -> list[str]:
    """Return a table of a component's parameters, described as in the docstring of its `__init__`."""
    descriptions = dict(PARAMETER.findall(inspect.getdoc(component.__init__) or ""))
    rows = [
        [f"`{name}`", f"`{kind(parameter)}`", default(parameter), " ".join(descriptions[name].split())]
        for name, parameter in inspect.signature(component.__init__).parameters.items()
        if name != "self"
    ]
    return text_table(("parameter", "type", "default", "description"), rows)


def options(command: typer.core.TyperCommand) -> list[str]:
    """Return a table of a command's arguments and options, described as in its help."""
    rows = []
    for option in command.params:
        names = [name if name.startswith("-") else name.upper() for name in (*option.opts, *option.secondary_opts)]
        shown = "" if option.default is None or option.default is False else f"`{option.default}`"
        shown = "required" if option.required else shown
        rows.append([" / ".join(f"`{name}`" for name in names), shown, option.help])
    return text_table(("option", "default", "description"), rows)


def text_table(header: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """Return a table whose cells are text, which may contain vertical bars."""
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return markdown_table(header, escaped, text_columns=len(header))


def kind(parameter: inspect.Parameter) -> str:
    """Return the annotation of a parameter, without the modules of its classes."""
    return re.sub(r"\b(\w+\.)+", "", inspect.formatannotation(parameter.annotation))


def default(parameter: inspect.Parameter) -> str:
    """Return the default of a parameter in Markdown, or an empty string if there is none."""
    value = parameter.default
    if value is inspect.Parameter.empty:
        return ""
    if isinstance(value, Secret):
        return " or ".join(f"`{variable}`" for variable in value.to_dict()["env_vars"])
    return f"`{value.value if isinstance(value, Enum) else value!r}`"


def alignment(report: Report) -> list[str]:
    """Return a table of ways to adjust embeddings, from the JSON that `keytok align --json` writes."""
    half = next(measured for measured in report["strengths"] if measured["name"] == "0.5")
    ways = [*report["methods"][:2], {**half, "name": "half of PC1 taken out"}, *report["methods"][2:]]
    rates = ("global_alignment_rate", "local_alignment_rate")
    rows = [
        [
            way["name"],
            *(decimal(way[among][rate]) for rate in rates for among in ("alignment", "content_alignment")),
            decimal(way["dense"]),
            decimal(way["key_tokens"]),
        ]
        for way in ways
    ]
    return markdown_table(("", "GAR", "of content", "LAR", "of content", "dense nDCG@10", "key tokens nDCG@10"), rows)


def experiments(name: str, lines: list[dict[str, Any]]) -> list[str]:
    """Return a table of an experiment's settings, after the default, from the JSON lines of `experiments.py`."""
    shown = [line for line in lines if line["experiment"] in ("default", name)]
    measured = [(embedder, key) for embedder in ("minilm", "mpnet") for key in shown[0].get(embedder, {})]
    rows = []
    for line in shown:
        of = {(embedder, key): line[embedder][key] for embedder, key in measured}
        means = [
            "{} / {}".format(*(f"{mean([of[e, k][part] for e, k in measured if e == embedder]):.3f}" for part in PARTS))
            for embedder in dict.fromkeys(embedder for embedder, _ in measured)
        ]
        cells = [" / ".join(f"{of[place][part]:.3f}" for part in PARTS) for place in measured]
        label = f"**{line['setting']}**" if line["setting"] == "default" else line["setting"]
        if line["experiment"] == "default" and name in DEFAULTS:
            label = DEFAULTS[name]
        rows.append([label, *means, *cells, f"{of['minilm', 'cranfield']['postings']:.2f}"])
    names = {"minilm": "MiniLM", "mpnet": "mpnet"}
    return markdown_table(
        (
            "all / half",
            *(f"{names[embedder]}, mean" for embedder in dict.fromkeys(embedder for embedder, _ in measured)),
            *(f"{names[embedder]}, {TITLES[key]}" for embedder, key in measured),
            "postings, Cranfield",
        ),
        rows,
    )


def engine_speed(report: Report) -> list[str]:
    """Return the table of latencies on OpenSearch, each with its ratio to HNSW that returns as much."""
    return latencies(report["sizes"], report["ndcg"]["opensearch"])


def elasticsearch_speed(report: Report) -> list[str]:
    """Return the table of latencies on Elasticsearch."""
    return latencies(report["elasticsearch"], report["ndcg"]["elasticsearch"])


def latencies(sizes: list[Report], ndcg: dict[str, float]) -> list[str]:
    """Return a table of latencies."""
    rows = []
    for name in sizes[0]["systems"]:
        cells = []
        for size in sizes:
            baseline = "HNSW, ten documents" if "ten documents" in name else "HNSW"
            system, other = size["systems"][name], size["systems"][baseline]
            cells += [f"{system['p50_ms']:.1f} ({system['p50_ms'] / other['p50_ms']:.2f})", f"{system['p95_ms']:.1f}"]
        rows.append([name, *cells, decimal(ndcg[name]) if name in ndcg else ""])
    heads = [head for size in sizes for head in (f"{size['documents']:,}: p50 (of HNSW)", "p95")]
    return markdown_table(("ms per query", *heads, "nDCG@10"), rows)


def engine_indexes(report: Report) -> list[str]:
    """Return the table of what it takes to write indices on OpenSearch, and of their sizes."""
    return [line for size in report["sizes"][1:] for line in [*indexes(size), ""]][:-1]


def elasticsearch_indexes(report: Report) -> list[str]:
    """Return the table of what it takes to write indices on Elasticsearch, and of their sizes."""
    return indexes(report["elasticsearch"][-1])


def indexes(size: Report) -> list[str]:
    """Return the table of what it takes to write indices, and of their sizes."""
    n, hnsw = size["documents"], size["indexing"]["hnsw"]
    rows = []
    for name, row in size["indexing"].items():
        total, of = (each["seconds_to_write"] + each["seconds_to_merge"] for each in (row, hnsw))
        parts = (row["bytes"], row["bytes_of_postings"], row["bytes_of_vectors"] + row["bytes_of_graph"])
        rows.append(
            [
                INDEXES[name],
                f"{row['seconds_to_write']:.0f} s",
                f"{row['seconds_to_merge']:.0f} s",
                f"{total / of:.2f}",
                *(f"{part / n:,.0f}" for part in parts),
            ]
        )
    heads = ["written in", "merged in", "both, of HNSW", "bytes per document", "of postings", "of vectors and graph"]
    told = len(heads) if hnsw["bytes_of_vectors"] else heads.index("of postings")  # Elasticsearch names no files
    return markdown_table((f"{n:,} documents", *heads[:told]), [row[: told + 1] for row in rows])


def scale(report: Report) -> list[str]:
    """Return the table of what ten and a hundred million documents would take, by the growth that was measured."""
    rows = []
    for documents in (1_000_000, 10_000_000, 100_000_000):
        for shard in (1_000_000, 5_000_000):
            if documents < shard:
                continue
            row = [f"{documents // 1_000_000} million", f"{documents // shard}"]
            rows.append([*row, *scaled(report["sizes"], documents, shard)])
    heads = ("memory, HNSW", "memory, key tokens", "disk, HNSW", "disk, key tokens", "ms, HNSW", "ms, key tokens")
    return markdown_table(("documents", "shards", *heads), rows)


def scaled(sizes: list[Report], documents: int, shard: int) -> list[str]:
    """
    Return memory, disk and time of a number of documents in shards of one size.

    Postings that are read grow with a shard, so key tokens take a constant and a time for each document; the search of
    a graph grows with the logarithm of its size. Both are drawn through the two largest sizes that were measured.
    """
    few, many = sizes[-2], sizes[-1]
    n, m = few["documents"], many["documents"]
    text, hnsw, key_tokens = (many["indexing"][name] for name in ("text", "hnsw", "key_tokens"))
    postings = key_tokens["bytes_of_postings"] - text["bytes_of_postings"]
    in_memory = (hnsw["bytes_of_vectors"] + hnsw["bytes_of_graph"], postings)
    on_disk = (hnsw["bytes"], key_tokens["bytes"])
    times = [[size["systems"][name]["p50_ms"] for size in (few, many)] for name in ("HNSW", "key tokens")]
    by_graph = times[0][1] + (times[0][1] - times[0][0]) / math.log(m / n) * math.log(shard / m)
    by_postings = times[1][1] + (times[1][1] - times[1][0]) / (m - n) * (shard - m)
    gigabytes = [f"{value / m * documents / 1e9:,.0f} GB" for value in (*in_memory, *on_disk)]
    return [*gigabytes, f"{by_graph:.1f}", f"{by_postings:.0f}"]


def engine_writing(report: Report) -> list[str]:
    """Return the table of how fast documents are written in several ways."""
    rows = [
        [way, *(f"{each['documents_per_second'][way]:,.0f}/s" for each in report["throughput"])]
        for way in report["throughput"][0]["documents_per_second"]
    ]
    sizes = (f"{each['documents']:,}" for each in report["throughput"])
    return markdown_table(("writing an index with text, vectors and key tokens", *sizes), rows)


def hits(report: Report) -> list[str]:
    """Return the table of what hits cost with all their key tokens, or with those that the query has."""
    indices = report["ms"]
    rows = [
        [kind, *(f"{measured[kind][size]:.1f}" for measured in indices.values() for size in ("10", "100"))]
        for kind in next(iter(indices.values()))
    ]
    heads = [f"{index}: {size}" for index in indices for size in (10, 100)]
    return markdown_table(("ms for so many hits", *heads), rows)


def phases(report: Report) -> list[str]:
    """Return the table of what a search in two phases finds among many documents."""
    rows = [
        [
            "all tokens" if each["rescored"] is None else f"{each['first_phase']} of the weight",
            "" if each["rescored"] is None else str(each["rescored"]),
            f"{each['nDCG@10']:.4f}".removeprefix("0"),
            decimal(each["overlap"]),
        ]
        for each in report["settings"]
    ]
    return markdown_table(("found by", "scored by all", "nDCG@10", "of the exact ten"), rows)


def table(name: str, root: Path) -> str:
    """Return the text of a table, by its name on a page."""
    if name in BENCHMARKS:
        benchmark, rows = BENCHMARKS[name]
        file = root / "benchmarks/results" / benchmark
        return "\n".join(rows(json.loads(file.read_text(encoding="utf-8")))) + "\n"
    if name.startswith("experiment-"):
        file = root / "docs/research/results/experiments.jsonl"
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return "\n".join(experiments(name.removeprefix("experiment-"), lines)) + "\n"
    if name in FILES:
        return (root / "benchmarks/results" / FILES[name]).read_text(encoding="utf-8")
    if name in COMPONENTS:
        return "\n".join(parameters(COMPONENTS[name])) + "\n"
    if name in COMMANDS:
        return "\n".join(options(COMMANDS[name])) + "\n"
    if name == "presets":
        return "\n".join(presets()) + "\n"
    prefix = next(prefix for prefix in sorted(EMBEDDERS, reverse=True) if name.startswith(prefix))
    files = {key: root / "docs/research/results" / f"{prefix}{key}.json" for key in EMBEDDERS[prefix]}
    reports = {key: json.loads(file.read_text(encoding="utf-8")) for key, file in files.items()}
    return "\n".join(TABLES[name.removeprefix(prefix)](reports)) + "\n"


BENCHMARKS: dict[str, tuple[str, Callable[[Report], list[str]]]] = {
    "engine-speed": ("engines.scifact.json", engine_speed),
    "engine-indexes": ("engines.scifact.json", engine_indexes),
    "elasticsearch-speed": ("engines.scifact.json", elasticsearch_speed),
    "elasticsearch-indexes": ("engines.scifact.json", elasticsearch_indexes),
    "engine-writing": ("engines.scifact.json", engine_writing),
    "scale": ("engines.scifact.json", scale),
    "hits": ("hits.scifact.json", hits),
    "phases": ("phases.scifact.json", phases),
    "alignment": ("alignment.smollm2.json", alignment),
}
"""Tables from the JSON of benchmarks: its file in benchmarks/results, and the function that makes the rows."""
DEFAULTS = {"hybrid": "key tokens alone", "phases": "found by all tokens"}
"""What the default is in tables of experiments that change it elsewhere."""
INDEXES = {
    "text": "text alone",
    "hnsw": "text and dense vectors (HNSW)",
    "key_tokens": "text and key tokens, their projection included",
    "short_keys": "the same, positions in place of words",
    "hybrid": "text, key tokens and dense vectors (HNSW)",
    "hybrid_without_graph": "text, key tokens and dense vectors without a graph",
}
"""Indices of `engines.py`."""


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args(arguments).check
    outdated = 0
    for file in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = file.read_text(encoding="utf-8")
        current = BLOCK.sub(lambda block: f"<!-- table: {block[1]} -->\n{table(block[1], root)}<!-- end -->", text)
        if current != text:
            outdated += 1
            print(f"{file.relative_to(root)} {'is out of date: run `make report`' if check else 'written'}")
            if not check:
                file.write_text(current, encoding="utf-8")
    return int(check and outdated > 0)


if __name__ == "__main__":
    sys.exit(main())
