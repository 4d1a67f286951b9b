# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Batches, padding, attention, windows and bad input; what each preset makes of a text is in test_presets."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import ARCHITECTURES, TEXTS, WINDOW
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import Preparation, TokenDecoder
from keytok_haystack.encoders import PRESETS, Preset, find_preset, head_of
from keytok_haystack.encoders.inputs import InputBuilder
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.presets import Prompt

MANY = [" ".join(TEXTS[i % 5].split()[: 1 + i % 7]) for i in range(23)]
CAUSAL = {
    "sgpt-msmarco": "gpt-neo",
    "opt-eol": "opt",
    "opt-eol-cse": "opt-350m",
    "llama-eol": "llama",
    "e5-mistral": "e5-mistral",
    "qwen3-embedding-0.6b": "qwen3",
}
OTHERS = {
    "gritlm-7b": "mistral",
    "llm2vec-sup": "mistral-instruct",
    "gte-qwen2-7b": "qwen2",
    "all-mpnet-base-v2": "mpnet",
}
RUNS = [*CAUSAL.items(), *OTHERS.items()]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[Preset], str]:
    """Give a preset of one's own a name."""

    def name(preset: Preset) -> str:
        monkeypatch.setitem(PRESETS, "own", preset)
        return "own"

    return name


@pytest.fixture
def damaged(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "damaged"))


def configure(folder: Path, **settings: object) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


@pytest.mark.parametrize(("preset", "architecture"), RUNS)
def test_batches_change_nothing(tiny: Callable[[str], Path], preset: str, architecture: str):
    embedder = f"{preset}:{tiny(architecture)}"
    alone = LanguageModelEncoder(embedder, batch_tokens=1)
    together = LanguageModelEncoder(embedder, batch_tokens=10_000)
    expected = np.concatenate([alone.encode([text]) for text in MANY])
    assert len(np.unique(expected.round(3), axis=0)) == len(set(MANY))
    order = np.random.default_rng(0).permutation(len(MANY))
    for encoder in (alone, together, LanguageModelEncoder(embedder, batch_tokens=100)):
        np.testing.assert_allclose(encoder.encode(MANY), expected, atol=2e-5)
        np.testing.assert_allclose(encoder.encode([MANY[i] for i in order]), expected[order], atol=2e-5)


@pytest.mark.parametrize(("preset", "architecture"), CAUSAL.items())
def test_padding_on_the_left_gives_the_same(tiny: Callable[[str], Path], preset: str, architecture: str):
    """As authors pad whose embedding is the last state, with transformers' own attention mask and positions."""
    folder = tiny(architecture)
    encoder = LanguageModelEncoder(f"{preset}:{folder}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt, ending = encoder.preset.document, encoder.preset.ending
    inputs = [tokenizer(f"{prompt.before}{text}{prompt.after}")["input_ids"] for text in MANY]
    if preset == "sgpt-msmarco":  # the only one whose prompt is apart
        inputs = [
            [*tokenizer("{")["input_ids"], *tokenizer(t)["input_ids"], *tokenizer("}")["input_ids"]] for t in MANY
        ]
    if ending and inputs[0][-1] != tokenizer.convert_tokens_to_ids(ending):
        inputs = [[*ids, tokenizer.convert_tokens_to_ids(ending)] for ids in inputs]
    longest = max(map(len, inputs))
    ids = torch.tensor([[0] * (longest - len(each)) + each for each in inputs])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in inputs])
    assert not mask.all()
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        output = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    states = output.last_hidden_state.numpy()
    expected = states[:, -1]
    if encoder.preset.pooling == "weighted-mean":
        weights = (mask.cumsum(1) * mask).numpy()
        expected = np.einsum("ntd,nt->nd", states, weights) / weights.sum(axis=1, keepdims=True)
    if encoder.preset.normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(MANY), expected, atol=2e-5)


def test_batches_are_of_texts_of_like_lengths_within_the_budget(tiny: Callable[[str], Path]):
    encoder = LanguageModelEncoder(f"sgpt-nli:{tiny('gpt-neo')}", batch_tokens=60)
    tokenizer = ARCHITECTURES["gpt-neo"].tokenizer
    shapes = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings > WINDOW:  # of tokens, not of positions
            shapes.append(tuple(inputs[0].shape))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    encoder.encode([*MANY, " ".join(TEXTS)])
    hook.remove()
    lengths = [len(tokenizer.encode(text).ids) for text in [*MANY, " ".join(TEXTS)]]
    assert sum(rows for rows, _ in shapes) == len(lengths)
    assert max(lengths) > 60
    assert all(rows * longest <= 60 or rows == 1 for rows, longest in shapes)
    assert len(shapes) < len(lengths) / 2
    assert sum(rows * longest for rows, longest in shapes) < 1.2 * sum(lengths)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_attention_is_causal_or_in_both_directions(
    tiny: Callable[[str], Path], named: Callable[[Preset], str], architecture: str, bidirectional: bool
):
    """What comes last moves the state of what comes first, with padding and without, or it does not."""
    preset = Preset(checkpoint=str(tiny(architecture)), pooling="cls", bidirectional=bidirectional)
    encoder = LanguageModelEncoder(named(preset))
    padded = encoder.encode(["heat flow", "heat wave", " ".join(TEXTS)])
    for lift, drag in (padded[:2], encoder.encode(["heat flow", "heat wave"])):
        change = np.abs(lift - drag).max()
        assert change > 1e-3 if bidirectional else change < 1e-5


def test_a_model_that_stays_causal_is_refused_where_both_directions_are_needed(tiny: Callable[[str], Path]):
    with pytest.raises(ValueError, match=r"needs attention in both directions, which .* type 'gpt_neo'"):
        LanguageModelEncoder(f"gritlm-7b:{tiny('gpt-neo')}")


@pytest.mark.parametrize("architecture", ["llama", "gpt-neo", "opt", "opt-350m", "qwen2", "qwen3-base"])
def test_prompt_eol_decoded_by_the_head_is_the_prediction_of_the_next_token(
    tiny: Callable[[str], Path], architecture: str
):
    embedder = f"prompt-eol:{tiny(architecture)}"
    embeddings = LanguageModelEncoder(embedder).encode(TEXTS)
    head = head_of(embedder, fold=False)
    logits = TokenDecoder(head.decoder.weight, Preparation(normalize=False)).logits(embeddings)

    network = transformers.AutoModelForCausalLM.from_pretrained(tiny(architecture))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny(architecture))
    for text, own in zip(TEXTS, logits, strict=True):
        with torch.no_grad():
            predicted = network(
                **tokenizer(f'This sentence : "{text}" means in one word:"', return_tensors="pt")
            ).logits
        expected = predicted[0, -1].numpy()[: len(head.vocabulary.feature_of_id)]
        feature = head.vocabulary.feature_of_id[: len(expected)]
        assert len(np.unique(feature[feature >= 0])) == len(own) > 250
        np.testing.assert_allclose(own[feature[feature >= 0]], expected[feature >= 0], atol=2e-4)
        assert expected.std() > 0.5


def test_other_types_of_weights_give_almost_the_same(tiny: Callable[[str], Path]):
    embedder = f"gte-qwen2-7b:{tiny('qwen2')}"
    exact = LanguageModelEncoder(embedder, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(exact, LanguageModelEncoder(embedder, device="cpu").encode(TEXTS))
    for dtype in ("bfloat16", "float16"):
        rough = LanguageModelEncoder(embedder, dtype=dtype).encode(TEXTS)
        assert rough.dtype == np.float32
        assert 1e-5 < np.abs(rough - exact).max() < 0.1
        assert (rough * exact).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "nn", ""])
def test_unknown_types_of_weights_are_refused(tiny: Callable[[str], Path], dtype: str):
    with pytest.raises(ValueError, match=f"'{dtype}' is not a type of weights .* use float32, bfloat16, float16"):
        LanguageModelEncoder(f"prompt-eol:{tiny('llama')}", dtype=dtype)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_devices_that_are_not_there_are_refused(tiny: Callable[[str], Path], device: str):
    with pytest.raises(ValueError, match=f"The device '{device}' cannot be used"):
        LanguageModelEncoder(f"prompt-eol:{tiny('llama')}", device=device)


EOL = PRESETS["prompt-eol"].document
PROMPTS = {
    "gpt-neo": (PRESETS["sgpt-msmarco"].query, EOL, Prompt()),
    "opt": (EOL,),
    "llama": (EOL, PRESETS["gritlm-7b"].prompt("query"), PRESETS["llm2vec-sup"].document),
    "qwen2": (PRESETS["gte-qwen2-7b"].prompt("query"),),
    "qwen3": (PRESETS["qwen3-embedding-8b"].document,),
    "bert": (PRESETS["prompt-bert"].document, PRESETS["e5-base-v2"].query),
}
QUOTES = st.text(alphabet="\"'{}[]<|>:. \n\tab\u00a0\u2028éß字🚀", max_size=60)


@pytest.mark.parametrize("architecture", PROMPTS)
@given(text=QUOTES | st.text(max_size=40) | st.sampled_from([*TEXTS, '" means in one word:"', "{instruction}"]))
def test_the_end_of_a_long_text_is_cut_off_and_the_prompt_stays_whole(architecture: str, text: str):
    tokenizer = ARCHITECTURES[architecture].tokenizer
    ending = tokenizer.token_to_id("<|endoftext|>") if architecture.startswith("qwen") else None

    def whole(text: str, prompt: Prompt) -> list[int]:
        parts = (prompt.before, text, prompt.after)
        if prompt.apart:
            return [i for part in parts for i in tokenizer.encode(part).ids]
        ids = tokenizer.encode("".join(parts)).ids
        return [*ids, ending] if architecture == "qwen2" and ids[-1:] != [ending] else ids

    for prompt, room in product(PROMPTS[architecture], (3, 12)):
        limit = len(whole("", prompt)) + room
        (built,) = InputBuilder(tokenizer, limit, ending)([text], prompt)
        every = [whole(text[:cut], prompt) for cut in range(len(text) + 1)]
        assert len(built.ids) <= limit
        assert built.ids in every
        if len(every[-1]) <= limit:
            assert built.ids == every[-1]
        else:
            assert len(built.ids) >= max(len(ids) for ids in every if len(ids) <= limit) - 3


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt-neo", "bert", "mpnet"])
def test_a_text_of_any_length_fits_into_the_window(tiny: Callable[[str], Path], architecture: str):
    long = " ".join(TEXTS * 10)
    preset = "gte-base" if architecture in ("bert", "mpnet") else "prompt-eol"
    encoder = LanguageModelEncoder(f"{preset}:{tiny(architecture)}")
    assert encoder.max_tokens == WINDOW
    shorter = LanguageModelEncoder(f"{preset}:{tiny(architecture)}", max_tokens=60)
    assert shorter.max_tokens == 60
    ids = len(ARCHITECTURES[architecture].tokenizer.encode(long).ids)
    assert ids > 2 * WINDOW
    embeddings = [e.encode([long[: len(long) // 2], long]) for e in (encoder, shorter)]
    for both in embeddings:  # what is beyond the window does not matter
        np.testing.assert_allclose(both[0], both[1], atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-2


def test_the_tokenizers_own_limit_is_a_window_too(damaged: Path):
    settings = damaged / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 50}))
    assert LanguageModelEncoder(f"prompt-eol:{damaged}").max_tokens == 50


def test_models_without_a_window_have_that_of_the_preset(damaged: Path):
    config = transformers.BloomConfig(vocab_size=500, hidden_size=16, n_layer=1, n_head=2)
    transformers.BloomForCausalLM(config).save_pretrained(damaged)
    assert LanguageModelEncoder(f"prompt-eol:{damaged}").max_tokens == 512


@pytest.mark.parametrize("max_tokens", [-1, 0, WINDOW + 1])
def test_lengths_beyond_the_window_are_refused(tiny: Callable[[str], Path], max_tokens: int):
    with pytest.raises(ValueError, match=rf"must be between 1 and {WINDOW}, the window of .*, but it is {max_tokens}"):
        LanguageModelEncoder(f"prompt-eol:{tiny('llama')}", max_tokens=max_tokens)


def test_prompts_and_instructions_that_leave_no_room_are_refused(tiny: Callable[[str], Path]):
    prompt = len(ARCHITECTURES["llama"].tokenizer.encode(f"{EOL.before}{EOL.after}").ids)
    with pytest.raises(ValueError, match=f"no room for a text within {prompt} tokens: shorten it, or allow more"):
        LanguageModelEncoder(f"prompt-eol:{tiny('llama')}", max_tokens=prompt).encode(["lift"])
    encoder = LanguageModelEncoder(f"gritlm-7b:{tiny('mistral')}")
    with pytest.raises(ValueError, match=f"no room for a text within {WINDOW} tokens"):
        encoder.encode(["lift"], "query", "Explain. " * 100)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["lift", "half \ud83d"], ValueError, "text 1 has half a surrogate pair"),
        (["lift", None], TypeError, "text 1 is of type NoneType"),
        ([b"lift"], TypeError, "text 0 is of type bytes"),
    ],
)
def test_what_is_no_text_is_refused(tiny: Callable[[str], Path], texts: list, error: type, message: str):
    with pytest.raises(error, match=message):
        LanguageModelEncoder(f"prompt-eol:{tiny('llama')}").encode(texts)


def test_no_texts_have_no_embeddings(tiny: Callable[[str], Path]):
    assert LanguageModelEncoder(f"prompt-eol:{tiny('llama')}").encode([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("preset", "architecture"), [("sgpt-nli", "gpt-neo"), ("gritlm-7b", "mistral"), ("gritlm-7b", "qwen2")]
)
def test_an_empty_text_is_refused_where_only_its_own_tokens_are_pooled(
    tiny: Callable[[str], Path], preset: str, architecture: str
):
    with pytest.raises(ValueError, match="Text 1 is empty, so it has no hidden states to pool: leave it out"):
        LanguageModelEncoder(f"{preset}:{tiny(architecture)}").encode(["lift", ""])


def test_an_empty_text_is_what_the_prompt_says_elsewhere(tiny: Callable[[str], Path]):
    """PromptEOL pools the prompt's last token, SGPT's brackets are pooled themselves, as is the end of LLM2Vec's."""
    model = transformers.AutoModel.from_pretrained(tiny("mistral"), attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("mistral"))
    with torch.no_grad():
        eol = model(**tokenizer('This sentence : "" means in one word:"', return_tensors="pt")).last_hidden_state[0, -1]
        ids = tokenizer("[INST]  [/INST]", return_tensors="pt")["input_ids"]
        behind = len(tokenizer(" [/INST]", add_special_tokens=False)["input_ids"])
        seen = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
        llm2vec = model(ids, attention_mask=seen).last_hidden_state[0, -behind:].mean(0)
    for preset, expected in (("prompt-eol", eol), ("llm2vec-sup", llm2vec)):
        embedding = LanguageModelEncoder(f"{preset}:{tiny('mistral')}").encode([""])[0]
        np.testing.assert_allclose(embedding, expected.numpy(), atol=1e-5)
    assert LanguageModelEncoder(f"sgpt-msmarco:{tiny('gpt-neo')}").encode([""]).shape == (1, 32)


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        ("nonsense", "'nonsense' is not an embedder that is known by name: prompt-eol, "),
        ("nonsense:gpt2", "'nonsense:gpt2' is not an embedder"),
        (
            "prompt-eol",
            "'prompt-eol' says how to run a language model, but not which one: name it, as in 'prompt-eol:P",
        ),
        ("prompt-eol:/no/where", "'/no/where' is not a language model that can be loaded"),
    ],
)
def test_unknown_embedders_are_refused(embedder: str, message: str):
    with pytest.raises(ValueError, match=message):
        LanguageModelEncoder(embedder)


def test_a_checkpoint_of_ones_own_has_its_own_head():
    own = find_preset("opt-eol-cse:/some/folder")
    assert own == replace(PRESETS["opt-eol-cse"], checkpoint="/some/folder", adapters=(), backbone=None)
    assert find_preset("opt-eol-cse") is PRESETS["opt-eol-cse"]
    assert find_preset("/opt-eol-cse") is None
    assert find_preset("sentence-transformers/all-MiniLM-L6-v2") is None


@pytest.mark.parametrize(
    ("preset", "architecture", "message"),
    [
        ("prompt-bert", "llama", "pools the mask token, but the tokenizer of .* has none"),
        ("simcse-sup", "llama", "uses the pooler of an encoder, which .* does not have"),
        ("gte-qwen2-7b", "llama", r"end with '<\|endoftext\|>', a token that its tokenizer does not have"),
    ],
)
def test_models_that_lack_what_the_preset_needs_are_refused(
    tiny: Callable[[str], Path], preset: str, architecture: str, message: str
):
    with pytest.raises(ValueError, match=message):
        LanguageModelEncoder(f"{preset}:{tiny(architecture)}")


def test_weights_that_are_missing_are_named(damaged: Path):
    configure(damaged, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks weights of its model: layers\.2\."):
        LanguageModelEncoder(f"prompt-eol:{damaged}")


def test_weights_of_another_shape_are_named(damaged: Path):
    configure(damaged, intermediate_size=48)
    with pytest.raises(ValueError, match=r"other shapes than its config.json says: layers\.0\.mlp\.down_proj\.weight"):
        LanguageModelEncoder(f"prompt-eol:{damaged}")


def test_a_pooler_may_be_missing_where_it_is_not_used(tmp_path: Path, tiny: Callable[[str], Path]):
    """Checkpoints of masked language models have none."""
    encoder = LanguageModelEncoder(f"contriever:{tiny('bert')}")
    assert encoder.encode(["lift"]).shape == (1, 32)
    with pytest.raises(ValueError, match=r"lacks weights of its model: pooler\.dense"):
        LanguageModelEncoder(f"simcse-sup:{tiny('bert')}")


def test_an_encoder_with_a_decoder_is_refused(damaged: Path):
    config = transformers.T5Config(vocab_size=500, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(damaged)
    with pytest.raises(ValueError, match="is an encoder with a decoder"):
        LanguageModelEncoder(f"prompt-eol:{damaged}")


def test_a_tokenizer_that_is_only_python_is_refused(damaged: Path):
    (damaged / "tokenizer.json").unlink()
    (damaged / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(ValueError, match=r"The tokenizer of .*, ByT5Tokenizer, has no tokenizer\.json"):
        LanguageModelEncoder(f"prompt-eol:{damaged}")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_files_that_cannot_be_read_are_refused(damaged: Path, file: str):
    (damaged / file).write_bytes((damaged / file).read_bytes()[:100])
    with pytest.raises(ValueError, match=f"'{damaged}' is not a language model that can be loaded: "):
        LanguageModelEncoder(f"prompt-eol:{damaged}")


def test_code_in_a_checkpoint_is_not_run(damaged: Path, tmp_path: Path):
    (damaged / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    configure(damaged, auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    assert LanguageModelEncoder(f"prompt-eol:{damaged}").encode(["lift"]).shape == (1, 32)
    configure(damaged, model_type="of its own")
    with pytest.raises(ValueError, match="is not a language model that can be loaded"):
        LanguageModelEncoder(f"prompt-eol:{damaged}")
    assert not (tmp_path / "run").exists()
