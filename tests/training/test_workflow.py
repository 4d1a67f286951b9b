# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A training of a tiny checkpoint: what it writes, what that can be used for, and what it refuses."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from helpers.tiny_models import TEXTS
from helpers.training import counted_loads, read_files, write_collection
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer

from keytok_haystack import KeyTokenModel
from keytok_haystack.encoders import PRESETS, CachedEmbedder, embed, head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.embedder_quality import judge
from keytok_haystack.training import (
    Settings,
    TargetRule,
    TrainingReport,
    preview_targets,
    read_stop_words,
    train,
    workflow,
)
from keytok_haystack.training.examples import Examples, split
from keytok_haystack.training.loop import fit_network
from keytok_haystack.training.targets import make_targets

pytestmark = pytest.mark.usefixtures("cache")

Tiny = Callable[[str], Path]

RULE = TargetRule("both", min_df=2, max_df=0.5)
SETTINGS = Settings(epochs=3.0, batch_size=8, checkpoint_steps=6, learning_rate=0.01)
BRIEF = replace(SETTINGS, epochs=1.0)


class Result(NamedTuple):
    """The folder of a trained embedder, the report, and the models that were loaded."""

    folder: Path
    report: TrainingReport
    loads: list[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def cache(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYTOK_CACHE", str(place / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    return write_collection(place / "wings")


@pytest.fixture(scope="module")
def texts(data: Path) -> list[str]:
    return [text for text in Collection.load(data, "dev").documents.values() if text.strip()]


@pytest.fixture(scope="module")
def base(tiny: Tiny) -> Path:
    return tiny("llama")


@pytest.fixture(scope="module")
def trained(cache: None, place: Path, data: Path, base: Path) -> Result:
    """The folder's parent was not there before."""
    folder = place / "new" / "trained"
    with counted_loads() as loads:
        report = train([data], str(base), folder, rule=RULE, settings=SETTINGS, evaluate_on=[data])
    return Result(folder, report, loads)


@pytest.fixture(scope="module")
def targets(cache: None, base: Path, texts: list[str]) -> csr_array:
    embedder = CachedEmbedder(f"prompt-eol:{base}", progress_bar=False)
    return make_targets(RULE, head_of(embedder.embedder), texts, lambda texts: embedder.embed(texts).embeddings)


def test_the_report(trained: Result, base: Path):
    report = trained.report
    written = json.loads((trained.folder / "training.json").read_text())
    assert set(written.pop("files")) == set(read_files(trained.folder))
    assert written == json.loads(json.dumps(report.to_dict()))
    assert (report.base, report.embedder) == (f"prompt-eol:{base}", f"prompt-eol:{trained.folder}")
    assert (report.given, report.texts, report.held_out) == (60, 57, 3)
    assert written["texts"] == {"trained_on": 57, "given": 60}
    settings = {"epochs": 3.0, "batch_size": 8, "checkpoint_steps": 6, "learning_rate": 0.01, "method": "lora"}
    assert written["settings"] | settings == written["settings"]
    assert written["targets"] == {"kind": "both", "share": 0.5, "min_df": 2, "max_df": 0.5, "stop_words": 0}
    assert written["training"]["steps"] == 24  # three times 8
    held_out = [entry for entry in written["training"]["history"] if "held_out_loss" in entry]
    assert [entry["step"] for entry in held_out] == [0, 6, 12, 18, 24]
    assert held_out[-1]["held_out_loss"] < 0.9 * held_out[0]["held_out_loss"]


def test_base_and_result_are_loaded_once_each(trained: Result, base: Path):
    assert trained.loads == [str(base), str(trained.folder)]


def test_a_judgement_loads_its_embedder_once(base: Path, data: Path, texts: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path))
    embedder = CachedEmbedder(f"prompt-eol:{base}", progress_bar=False)
    with counted_loads() as loads:
        judge(
            lambda texts, role: embedder.embed(texts, role).embeddings,
            head_of(embedder.embedder),
            texts[:3],
            [Collection.load(data, "dev")],
        )
    assert loads == [str(base)]


def test_what_was_embedded_to_judge_it_is_in_the_cache(trained: Result, data: Path):
    documents, embedder = list(Collection.load(data, "dev").documents.values()), trained.report.embedder
    assert embed(documents, embedder, progress_bar=False).cached
    (trained.folder / "generation_config.json").write_text("{}")
    assert not embed(documents, embedder, progress_bar=False).cached
    (trained.folder / "generation_config.json").unlink()


def test_before_and_after(trained: Result):
    before, after = trained.report.before, trained.report.after
    assert list(before.collections) == list(after.collections) == ["wings"]
    assert before.word_similarity != after.word_similarity
    assert after.alignment.literal_auc > before.alignment.literal_auc


def test_the_measures_are_those_of_the_two_embedders(trained: Result, data: Path, base: Path):
    """The dense nDCG@10 of queries with one relevant document each, computed anew."""
    collection = Collection.load(data, "dev")
    documents, queries = list(collection.documents.values()), list(collection.queries.values())
    for checkpoint, measured in ((base, trained.report.before), (trained.folder, trained.report.after)):
        encoder = LanguageModelEncoder(f"prompt-eol:{checkpoint}")
        rows, columns = (
            each / np.linalg.norm(each, axis=1, keepdims=True) for each in map(encoder.encode, (queries, documents))
        )
        similarities = rows @ columns.T
        ranks = [(scores > scores[row]).sum() for row, scores in enumerate(similarities)]
        expected = np.mean([1 / np.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks])
        assert measured.collections["wings"].dense == pytest.approx(expected, abs=1e-5)


def test_what_is_written(trained: Result):
    folder = trained.folder
    assert [path.name for path in folder.parent.iterdir()] == ["trained"]  # neither checkpoints nor anything half done
    assert {"config.json", "model.safetensors", "tokenizer.json", "modules.json"} <= set(read_files(folder))
    assert not [name for name in read_files(folder) if "adapter" in name or name.endswith((".bin", ".pt", ".pth"))]
    drawing = ET.parse(folder / "training.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_what_is_saved_embeds_as_the_encoder_in_memory(
    trained: Result, base: Path, texts: list[str], targets: csr_array, tmp_path: Path
):
    encoder = LanguageModelEncoder(f"prompt-eol:{base}")
    learnt, unseen = (
        Examples(encoder.inputs([texts[row] for row in chosen]), targets[chosen]) for chosen in split(targets, 0)
    )
    untrained = encoder.encode(texts)
    decoder = head_of(f"prompt-eol:{base}").decoder
    fit_network(encoder, decoder, learnt, unseen, SETTINGS, checkpoints=tmp_path / "checkpoints")
    expected = encoder.encode(texts)
    assert np.abs(expected - untrained).max() > 0.1
    np.testing.assert_array_equal(LanguageModelEncoder(f"prompt-eol:{trained.folder}").encode(texts), expected)
    stock = SentenceTransformer(str(trained.folder), device="cpu").encode(texts)
    np.testing.assert_allclose(stock, expected, rtol=1e-4, atol=1e-4)


def test_the_key_token_model(trained: Result, base: Path, texts: list[str], targets: csr_array):
    model = KeyTokenModel.load(trained.folder / "key_tokens")
    assert model.embedder == f"prompt-eol:{trained.folder}"
    assert model.dimension == 32
    np.testing.assert_array_equal(model.decoder.weight, head_of(f"prompt-eol:{base}").decoder.weight)
    learnt = [texts[row] for row in split(targets, 0)[0]]
    documents = model.encode_documents(LanguageModelEncoder(model.embedder).encode(learnt), learnt).rows
    assert documents.max(axis=1).toarray().mean() == pytest.approx(1, abs=0.01)


def test_the_head_stays_with_the_embedder(trained: Result, base: Path, texts: list[str]):
    before, after = head_of(f"prompt-eol:{base}"), head_of(trained.report.embedder)
    assert after.vocabulary.features == before.vocabulary.features
    np.testing.assert_array_equal(after.decoder.weight, before.decoder.weight)
    assert vars(after.decoder.preparation) == vars(before.decoder.preparation)
    assert (after.idf, after.spectrum, after.source) == (None, None, before.source)
    with pytest.raises(ValueError, match="is what is to be trained"):
        train(texts, trained.report.embedder, trained.folder)


def test_texts_and_collections_as_objects_give_the_same(
    trained: Result, data: Path, base: Path, texts: list[str], tmp_path: Path
):
    collection = Collection.load(data, "dev")
    report = train(
        ["", *texts, texts[0]], str(base), tmp_path / "out", rule=RULE, settings=SETTINGS, evaluate_on=[collection]
    )
    assert report.given == 60
    assert read_files(tmp_path / "out")["model.safetensors"] == read_files(trained.folder)["model.safetensors"]
    assert (report.before, report.after) == (trained.report.before, trained.report.after)


def test_an_interruption_while_the_result_is_judged(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The result is there, and the same call only judges it."""
    output, calls = tmp_path / "trained", []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(workflow, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train([data], str(base), output, rule=RULE, settings=BRIEF)
    before = json.loads((output / "training.json").read_text())
    assert before["after"] is None
    report = train([data], str(base), output, rule=RULE, settings=BRIEF)
    assert report.after.alignment.hit_at_k > 0
    after = json.loads((output / "training.json").read_text())
    assert [after["training"][name] for name in ("steps", "seconds", "tokens")] == [
        before["training"][name] for name in ("steps", "seconds", "tokens")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def test_a_full_disk_at_the_end(data: Path, base: Path, tmp_path: Path):
    """Checkpoints have been written, the larger model cannot be; the same call then only has to write it."""
    output = tmp_path / "trained"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="The trained embedder cannot be written") as error:
            train([data], str(base), output, rule=RULE, settings=BRIEF)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"make room at '{tmp_path}', and run again." in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [".trained.training"]
    assert (tmp_path / ".trained.training" / "checkpoint-8" / "complete").exists()
    report = train([data], str(base), output, rule=RULE, settings=BRIEF)
    assert report.trained.steps == 8
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def test_an_encoder(tiny: Tiny, data: Path, tmp_path: Path):
    """Two steps, which the plot and the report show, too."""
    output = tmp_path / "trained"
    report = train([data], f"contriever:{tiny('bert')}", output, rule=TargetRule(max_df=0.5))
    assert report.trained.settings.method == "full"
    assert report.embedder == f"contriever:{output}"
    assert report.trained.steps == 2
    assert report.no_sentence_transformers is None
    embeddings = LanguageModelEncoder(report.embedder).encode(list(TEXTS))
    np.testing.assert_allclose(
        SentenceTransformer(str(output), device="cpu").encode(list(TEXTS)), embeddings, rtol=1e-4, atol=1e-4
    )


def test_scaled_embeddings_are_taught_as_hidden_states(tiny: Tiny, texts: list[str], monkeypatch: pytest.MonkeyPatch):
    """The softmax of what a head makes of unit vectors would be flat."""
    monkeypatch.setitem(PRESETS, "unscaled", replace(PRESETS["qwen3-embedding-0.6b"], normalize=False))
    rule = TargetRule("model", min_df=2, max_df=0.5)
    scaled, unscaled = (
        preview_targets(texts, f"{name}:{tiny('qwen3')}", 60, rule=rule)
        for name in ("qwen3-embedding-0.6b", "unscaled")
    )
    assert [each.text for each in scaled] == [each.text for each in unscaled] == texts
    for first, second in zip(scaled, unscaled, strict=True):
        assert first.target == pytest.approx(second.target, abs=1e-6)


def test_preview_of_targets(base: Path, texts: list[str], targets: csr_array):
    features = head_of(f"prompt-eol:{base}").vocabulary.features
    previews = preview_targets(texts, str(base), 2, rule=RULE)
    assert [each.text for each in previews] == [texts[0], texts[59]]
    for preview, row in zip(previews, targets[[0, 59]], strict=True):
        assert preview.target == pytest.approx({features[i]: p for i, p in zip(row.indices, row.data, strict=True)})
        assert list(preview.target.values()) == sorted(preview.target.values(), reverse=True)


def test_english_stop_words_are_left_out_by_default(base: Path):
    texts = ["the wing", "the flow", "the lift", "wing flow lift", *(["drag"] * 40)]
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    words, expected = set(), set()
    for found, rule in ((words, None), (expected, TargetRule())):
        found.update(*(each.target for each in preview_targets(texts, str(base), 44, rule=rule)))
    assert words == expected - read_stop_words("english") != expected


@pytest.fixture
def refused(texts: list[str], base: Path, tmp_path: Path) -> Callable[..., str]:
    """Train, which must raise an error and write nothing; return the error's message."""

    def run(
        *,
        data: Any = texts,
        model: object = base,
        output: Path = tmp_path / "out",
        settings: Settings = SETTINGS,
        **options: Any,
    ) -> str:
        before = read_files(tmp_path)
        with pytest.raises((ValueError, OSError)) as error:
            train(data, str(model), output, rule=options.pop("rule", RULE), settings=settings, **options)
        assert read_files(tmp_path) == before
        return str(error.value)

    return run


def test_too_long_inputs_and_too_strict_filters(refused: Callable[..., str]):
    assert refused(max_tokens=4096).startswith("max_tokens must be between 1 and 128, the window of")
    assert refused(rule=replace(RULE, min_df=61)).startswith("The filters leave hardly any target of 60 texts")
    assert refused(evaluate_on=[Path("missing")]) == "There is no file 'missing/corpus.jsonl'."


def test_data_without_texts(refused: Callable[..., str], tmp_path: Path):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": " "}\n{"text": ""}\n')
    assert refused(data=[file]).startswith(f"There are no texts to train on: {file} has none")
    file.write_text("")
    assert refused(data=[file]) == f"'{file}' holds no texts."
    assert refused(data=[" "]).startswith("There are no texts to train on: the list has none")
    with pytest.raises(TypeError, match="not one string"):
        train("texts.jsonl", "prompt-eol:x", tmp_path / "out")


def test_outputs_that_are_something_else(refused: Callable[..., str], base: Path, trained: Result, tmp_path: Path):
    occupied = tmp_path / "letters"
    occupied.mkdir()
    (occupied / "letter.txt").write_text("Dear Ada")
    reason = "has content that keytok train has not written, so it is not replaced: choose another path."
    assert refused(output=occupied) == f"'{occupied}' {reason}"
    assert refused(output=occupied / "letter.txt") == f"'{occupied / 'letter.txt'}' {reason}"
    assert refused(output=base) == f"'{base}' is what is to be trained: choose another folder for the result."
    earlier = Path(shutil.copytree(trained.folder, tmp_path / "trained"))
    (earlier / "1_Pooling" / "letter.txt").touch()
    assert refused(output=earlier) == f"'{earlier}' {reason}"


def test_two_collections_of_the_same_name(refused: Callable[..., str], data: Path, tmp_path: Path):
    other = write_collection(tmp_path / "wings", documents=20)
    expected = "Two collections are called 'wings': rename one of the folders."
    assert refused(evaluate_on=[data, other]) == expected


def test_models_that_cannot_be_trained(refused: Callable[..., str], tiny: Tiny):
    encoder = tiny("bert")
    assert refused(model=encoder).startswith(
        f"'{encoder}' is an encoder: say how it pools, as in 'contriever:{encoder}'"
    )
    assert refused(model="prompt-eol").startswith("'prompt-eol' says how to run a language model, but not which one")


def test_stop_words(tmp_path: Path):
    assert {"the", "of", "and"} <= read_stop_words("english")
    assert {"und", "der"} <= read_stop_words("german")
    assert read_stop_words("none") == frozenset()
    (tmp_path / "words.txt").write_text("Aero\nÜber\n\n", encoding="utf-8")
    assert read_stop_words(str(tmp_path / "words.txt")) == {"aero", "über"}
    with pytest.raises(ValueError, match=r"or a language: .*english.*german"):
        read_stop_words("klingon")
