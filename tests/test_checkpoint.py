"""Checkpoints against transformers' own classes, through files in both directions; and everything that can be wrong."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from squeezebert import checkpoint
from squeezebert.checkpoint import load, save
from squeezebert.errors import InputError
from squeezebert.model.config import SIZES, ModelConfig
from squeezebert.model.heads import HEADS
from squeezebert.model.hf import ARCHITECTURES
from squeezebert.tokenizer import SPECIAL_TOKENS, Tokenizer

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5
SIZE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64,
    "max_position_embeddings": 24,
}  # fmt: skip
GROUPS = {
    "published": (4, 4, 4, 1, 4, 4),
    "unequal": (2, 2, 2, 2, 4, 1),
    "each its own": (1, 2, 4, 4, 2, 8),
}
_GROUP_FIELDS = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
THEIRS = [head for head in HEADS if head != "pretraining"]
WORDS = ["a", "b", "c", "##a", "##b", "film", "gripping", "dull", ",", "."]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """No progress bars or notes from transformers; both settings as they were, afterwards."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def sizes(groups: str = "unequal", **changes: Any) -> dict[str, Any]:
    return {**SIZE, **dict(zip(_GROUP_FIELDS, GROUPS[groups], strict=True)), **changes}


def their_model(head: str, groups: str = "unequal", **changes: Any) -> Any:
    """One of transformers' models in which no parameter has a value that hides a mistake, such as 0 or 1."""
    config = transformers.SqueezeBertConfig(**sizes(groups, **changes), embedding_size=SIZE["hidden_size"])
    model = getattr(transformers, ARCHITECTURES[head])(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def our_model(head: str, groups: str = "unequal", **changes: Any) -> Any:
    model = HEADS[head](ModelConfig(**sizes(groups, **changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def inputs(head: str) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and segments of three texts, the shorter ones padded."""
    ids = torch.randint(1, SIZE["vocab_size"], (3, 11))
    mask = torch.arange(11)[None] < torch.tensor([11, 7, 4])[:, None]
    types = (torch.arange(11)[None] > 3).long().expand(3, 11)
    batch = (ids, mask.long(), types)
    return tuple(each[:, None].repeat(1, 2, 1) for each in batch) if head == "multiple_choice" else batch  # type: ignore[return-value]


@torch.no_grad()
def assert_same_outputs(ours: Any, theirs: Any, head: str) -> None:
    ids, mask, types = inputs(head)
    mine = ours(ids, mask, types)
    other = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types)
    real = mask.bool() if head != "multiple_choice" else slice(None)
    if head == "encoder":
        pairs = [
            (mine.last_hidden_state, other.last_hidden_state),
            (mine.pooled[:, None], other.pooler_output[:, None]),
        ]
        real = slice(None)
    elif head == "question_answering":
        pairs = [(mine.logits, torch.stack([other.start_logits, other.end_logits], -1))]
    else:
        pairs = [(mine.logits, other.logits)]
        real = slice(None) if "sequence" in head else real
    for mine_, other_ in pairs:
        torch.testing.assert_close(mine_[real], other_[real], rtol=TOLERANCE, atol=TOLERANCE)


def write_published(folder: Path, state: dict[str, Tensor], *, config: dict[str, Any] | None = None) -> Path:
    """A folder as the published ones are: pytorch_model.bin, and a config without architectures and label names."""
    folder.mkdir(exist_ok=True)
    values = {**sizes("published"), "model_type": "squeezebert", "embedding_size": 32, **(config or {})}
    (folder / "config.json").write_text(json.dumps(values))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def vocab() -> Tokenizer:
    return Tokenizer.from_vocab([*SPECIAL_TOKENS, *WORDS])


# ---------------------------------------------------------------- the three published layouts


def test_fp16_with_masked_language_model_head(tmp_path: Path) -> None:
    theirs = their_model("masked_lm", "published").half().float()
    state = {name: tensor.half() for name, tensor in theirs.state_dict().items()}
    state["transformer.embeddings.position_ids"] = torch.arange(24)[None]
    folder = write_published(tmp_path, state)
    loaded = load(folder, "masked_lm")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert (loaded.report.dtype, loaded.report.head) == (
        "float16/int64",
        "masked_lm",
    ) or loaded.report.dtype == "float16"
    assert (loaded.report.missing, loaded.report.unexpected) == ((), ())
    assert not loaded.model.training
    assert_same_outputs(loaded.model, theirs, "masked_lm")

    classifier = load(folder, num_labels=3)
    assert classifier.report.missing == ("classifier.weight", "classifier.bias")
    assert len(classifier.report.unexpected) == 5
    assert all(name.startswith("cls.predictions.") for name in classifier.report.unexpected)
    assert "freshly initialised: classifier.weight, classifier.bias" in classifier.report.describe()
    assert "not used: cls.predictions.bias, " in classifier.report.describe()
    assert "and 1 more" in classifier.report.describe()


def test_fp32_with_classifier_and_unnamed_labels(tmp_path: Path) -> None:
    theirs = their_model("sequence_classification", "published", num_labels=3)
    loaded = load(write_published(tmp_path, theirs.state_dict(), config={"num_labels": 3}))
    assert (loaded.report.head, loaded.report.dtype) == ("sequence_classification", "float32")
    assert (loaded.report.missing, loaded.report.unexpected) == ((), ())
    assert loaded.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert_same_outputs(loaded.model, theirs, "sequence_classification")


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_headless_without_pooler(tmp_path: Path, prefix: str) -> None:
    theirs = their_model("encoder", "published")
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("pooler")}
    folder = write_published(tmp_path, state)
    loaded = load(folder, num_labels=2)
    assert loaded.report.head == "encoder"
    pooler = ("transformer.pooler.dense.weight", "transformer.pooler.dense.bias")
    assert loaded.report.missing == (*pooler, "classifier.weight", "classifier.bias")
    assert "transformer.pooler.dense.weight" in loaded.report.describe()
    encoder = load(folder, "encoder")
    assert encoder.report.missing == ("pooler.dense.weight", "pooler.dense.bias")
    ids, mask, types = inputs("encoder")
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        for model in (encoder.model, loaded.model.get_submodule("transformer")):
            torch.testing.assert_close(model(ids, mask, types).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_the_published_vocabulary_has_fewer_tokens_than_the_embedding_has_rows(
    tmp_path: Path, vocab: Tokenizer
) -> None:
    folder = write_published(tmp_path, their_model("masked_lm", "published").state_dict())
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]) + "\n")
    loaded = load(folder, "masked_lm")
    assert loaded.tokenizer is not None
    assert (loaded.config.vocab_size, loaded.config.real_vocab_size) == (96, vocab.vocab_size)
    with torch.no_grad():
        scores = loaded.model(*inputs("masked_lm")).logits
    assert scores[..., : vocab.vocab_size].isfinite().all()
    assert (scores[..., vocab.vocab_size :] == float("-inf")).all()


def test_a_vocabulary_far_too_small_is_another_models(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]))
    save(HEADS["encoder"](SIZES["tiny"]), tmp_path / "model")
    with pytest.raises(InputError, match="wrong vocabulary: 15 tokens, but the model was made for 2048"):
        load(tmp_path / "model", "encoder", vocab=tmp_path / "vocab.txt")


def test_the_published_mnli_checkpoint_gives_its_published_scores() -> None:
    hub = pytest.importorskip("huggingface_hub")
    repo = "squeezebert/squeezebert-mnli"
    cached = hub.try_to_load_from_cache(repo, "pytorch_model.bin")
    if not isinstance(cached, str):
        pytest.skip(f"needs {repo} in the hub's cache")
    ids = torch.tensor([[1, 29414, 232, 328, 740, 1140, 12695, 69, 13, 1588, 2]])
    with torch.no_grad():
        scores = load(Path(cached).parent).model(ids).logits
    # transformers' tests/models/squeezebert/test_modeling_squeezebert.py
    torch.testing.assert_close(scores, torch.tensor([[0.6401, -0.0349, -0.6041]]), rtol=0, atol=1e-4)


# ---------------------------------------------------------------- transformers -> ours -> transformers


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("head", THEIRS)
def test_there_and_back_through_files(tmp_path: Path, head: str, groups: str) -> None:
    theirs = their_model(head, groups)
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = load(tmp_path / "theirs", head)
    assert (loaded.report.missing, loaded.report.unexpected, loaded.report.head) == ((), (), head)
    assert_same_outputs(loaded.model, theirs, head)

    save(loaded.model, tmp_path / "ours")
    again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    expected, found = theirs.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    # Byte for byte what transformers itself would have written.
    written, reference = (load_file(tmp_path / who / "model.safetensors") for who in ("ours", "theirs"))
    assert written.keys() == reference.keys()


@pytest.mark.parametrize("head", THEIRS)
def test_ours_to_transformers_gives_the_same_outputs(tmp_path: Path, head: str) -> None:
    ours = our_model(head)
    save(ours, tmp_path / "model")
    theirs, info = getattr(transformers, ARCHITECTURES[head]).from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(info.values()), info
    assert_same_outputs(ours, theirs.eval(), head)


def test_the_pretraining_head_comes_back_and_transformers_reads_its_language_model(tmp_path: Path) -> None:
    ours = our_model("pretraining")
    save(ours, tmp_path / "model")
    again = load(tmp_path / "model", "pretraining")
    assert (again.report.missing, again.report.unexpected, again.report.head) == ((), (), "pretraining")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    theirs, info = transformers.SqueezeBertForMaskedLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert set(info["unexpected_keys"]) == {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}
    assert not info["missing_keys"]
    assert_same_outputs(ours, theirs.eval(), "masked_lm")


def test_labels_problem_type_vocabulary_and_extra_come_back(tmp_path: Path, vocab: Tokenizer) -> None:
    labels = {0: "dull", 1: "gripping", 2: "spam"}
    assert vocab.vocab_size == 15
    settings: dict[str, Any] = {
        "num_labels": 3,
        "id2label": labels,
        "problem_type": "multi_label_classification",
        "real_vocab_size": 15,
    }
    save(our_model("sequence_classification", **settings), tmp_path / "m", tokenizer=vocab, extra={"max_length": 17})
    loaded = load(tmp_path / "m")
    assert loaded.config == ModelConfig(**sizes(**settings))
    assert loaded.extra == {"max_length": 17}
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.encode("gripping film").input_ids == vocab.encode("gripping film").input_ids
    config = transformers.AutoConfig.from_pretrained(tmp_path / "m")
    assert (config.id2label, config.problem_type) == (labels, "multi_label_classification")
    assert config.architectures == ["SqueezeBertForSequenceClassification"]
    assert (
        transformers.AutoTokenizer.from_pretrained(tmp_path / "m")("gripping").input_ids
        == vocab.encode("gripping").input_ids
    )
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "float32"


# ---------------------------------------------------------------- files: formats and shards


def shard(state: dict[str, Tensor], folder: Path, base: str, write: Callable[[dict[str, Tensor], Path], None]) -> None:
    names = sorted(state)
    stem, suffix = base.rsplit(".", 1)
    weight_map = {}
    for number, start in enumerate(range(0, len(names), 12)):
        part = names[start : start + 12]
        file = f"{stem}-{number + 1:05}-of-00009.{suffix}"
        write({name: state[name].clone() for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    (folder / f"{base}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in state.items()}, path)


def write_legacy(state: dict[str, Tensor], path: Path) -> None:
    """The format of torch before 1.6, of the published files' time."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


FORMS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "safetensors": lambda state, folder: write_safetensors(state, folder / "model.safetensors"),
    "bin": lambda state, folder: torch.save(state, folder / "pytorch_model.bin"),
    "bin of old": lambda state, folder: write_legacy(state, folder / "pytorch_model.bin"),
    "safetensors in shards": lambda state, folder: shard(state, folder, "model.safetensors", write_safetensors),
    "bin in shards": lambda state, folder: shard(state, folder, "pytorch_model.bin", torch.save),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file(tmp_path: Path, form: str) -> None:
    theirs = their_model("sequence_classification", "published")
    folder = write_published(tmp_path, {})
    (folder / "pytorch_model.bin").unlink()
    FORMS[form](theirs.state_dict(), folder)
    loaded = load(folder)
    assert (loaded.report.missing, loaded.report.unexpected) == ((), ())
    assert_same_outputs(loaded.model, theirs, "sequence_classification")


def test_shards_as_transformers_writes_them(tmp_path: Path) -> None:
    theirs = their_model("token_classification")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert_same_outputs(load(tmp_path, "token_classification").model, theirs, "token_classification")


def test_weights_are_as_readable_as_the_other_files(tmp_path: Path) -> None:
    save(our_model("encoder"), tmp_path / "m")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "m").iterdir()}
    assert len(modes) == 1


# ---------------------------------------------------------------- finetuning from another head


def test_a_classifier_for_other_labels_is_made_anew_and_said(tmp_path: Path) -> None:
    labels = {0: "c", 1: "e", 2: "n"}
    ours = our_model(
        "sequence_classification", num_labels=3, id2label=labels, problem_type="single_label_classification"
    )
    save(ours, tmp_path / "m")
    loaded = load(tmp_path / "m", num_labels=5)
    assert loaded.report.reinitialised == ("classifier.bias", "classifier.weight")
    assert "made for other labels and freshly initialised: classifier.bias" in loaded.report.describe()
    assert loaded.model.get_parameter("classifier.weight").shape == (5, 32)
    assert (loaded.config.id2label, loaded.config.problem_type) == ({}, None)
    assert torch.equal(
        loaded.model.get_parameter("transformer.pooler.dense.weight"), ours.transformer.pooler.dense.weight
    )
    same = load(tmp_path / "m", num_labels=3, id2label={0: "x", 1: "y", 2: "z"})
    assert same.report.reinitialised == ()
    assert same.config.labels == ("x", "y", "z")
    assert torch.equal(same.model.get_parameter("classifier.weight"), ours.classifier.weight)


def test_fewer_layers_than_stored_may_be_asked_for(tmp_path: Path) -> None:
    save(our_model("encoder"), tmp_path / "m")
    loaded = load(tmp_path / "m", "encoder", num_hidden_layers=1)
    assert loaded.config.num_hidden_layers == 1
    assert len(loaded.report.unexpected) == 16
    assert all(name.startswith("encoder.layers.1.") for name in loaded.report.unexpected)


def test_a_missing_head_is_an_error_for_inference_and_fresh_for_finetuning(tmp_path: Path) -> None:
    save(our_model("masked_lm"), tmp_path / "m")
    with pytest.raises(InputError, match=r"no sequence_classification head \(it has masked_lm; missing: classifier"):
        load(tmp_path / "m")
    with pytest.raises(InputError, match="no sequence_classification head"):
        load(tmp_path / "m", num_labels=2, require_head=True)
    for options in ({"require_head": False}, {"num_labels": 2}):
        assert load(tmp_path / "m", **options).report.missing == ("classifier.weight", "classifier.bias")
    assert load(tmp_path / "m", "encoder").report.missing == ()


def test_the_pooler_is_part_of_a_head_that_uses_it(tmp_path: Path) -> None:
    for head in ("sequence_classification", "token_classification"):
        state = {name: t for name, t in their_model(head, "published").state_dict().items() if "pooler" not in name}
        folder = write_published(tmp_path / head, state)
        if head == "sequence_classification":
            with pytest.raises(InputError, match=r"missing: transformer\.pooler\.dense\.weight"):
                load(folder, head)
        else:
            assert len(load(folder, head).report.missing) == 2


# ---------------------------------------------------------------- size names


def test_a_size_name_gives_random_weights_and_says_so() -> None:
    loaded = load("tiny", num_labels=4)
    assert loaded.report.random
    assert loaded.tokenizer is None
    assert loaded.config == SIZES["tiny"].replace(num_labels=4)
    assert loaded.report.describe() == "tiny: a size name, so every weight is random"
    torch.manual_seed(0)
    first = load("tiny").model.state_dict()
    torch.manual_seed(0)
    assert all(torch.equal(first[name], tensor) for name, tensor in load("tiny").model.state_dict().items())


@pytest.mark.parametrize(("tokens", "rows"), [(30522, 30528), (64, 64), (65, 128)])
def test_a_size_name_takes_its_rows_from_the_vocabulary(tmp_path: Path, tokens: int, rows: int) -> None:
    words = [f"w{number}" for number in range(tokens - len(SPECIAL_TOKENS))]
    (tmp_path / "vocab.txt").write_text("\n".join([*words, *SPECIAL_TOKENS]) + "\n")
    loaded = load("tiny", "masked_lm", vocab=tmp_path / "vocab.txt")
    assert loaded.tokenizer is not None
    assert (loaded.config.vocab_size, loaded.config.real_vocab_size) == (rows, tokens)
    assert loaded.config.pad_token_id == loaded.tokenizer.pad_id == tokens - len(SPECIAL_TOKENS)


def test_a_folder_comes_before_a_size_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(our_model("encoder"), "tiny")
    assert not load("tiny", "encoder").report.random
    assert checkpoint.find_head("tiny") == "encoder"


# ---------------------------------------------------------------- the hub


def test_a_hub_id_fetches_the_needed_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    origin = write_published(tmp_path / "origin", their_model("encoder", "published").state_dict())
    (origin / "flax_model.msgpack").write_bytes(b"large")
    # A teacher of another kind may keep its vocabulary in any of these alone.
    vocabularies = {"merges.txt", "vocab.json", "spiece.model", "bpe.codes", "added_tokens.json"}
    for name in vocabularies:
        (origin / name).touch()
    asked = []

    def snapshot_download(repo_id: str, *, allow_patterns: list[str]) -> str:
        asked.append(repo_id)
        target = tmp_path / "cache"
        target.mkdir(exist_ok=True)
        for file in origin.iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                shutil.copy(file, target)
        return str(target)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    loaded = load("squeezebert/squeezebert-uncased", "encoder")
    assert loaded.report.source == "squeezebert/squeezebert-uncased"
    assert set(asked) == {"squeezebert/squeezebert-uncased"}
    fetched = {file.name for file in (tmp_path / "cache").iterdir()}
    assert fetched == {"config.json", "pytorch_model.bin", *vocabularies}


def test_a_hub_id_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match="squeezebert/none-such: no such folder, and not to be had from the hub: "
    ) as error:
        load("squeezebert/none-such")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["no-such-folder", "./no/such", "/no/such/folder", "a/b/c", "", "huge"])
def test_what_is_no_hub_id_is_not_asked_of_the_hub(source: str) -> None:
    if source == "":  # Path("") is the working folder, which holds no checkpoint
        with pytest.raises(InputError, match=r"no config\.json"):
            load(source)
        return
    with pytest.raises(InputError, match="no such folder; give a folder, a hub id"):
        load(source)


# ---------------------------------------------------------------- what can be wrong


def fresh(folder: Path, head: str = "sequence_classification") -> Path:
    save(our_model(head), folder)
    return folder


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def broken(content: bytes | Callable[[Path], None], name: str) -> Callable[[Path], None]:
    """Put a file of that content in place of the weights."""

    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content)

    return apply


def halved(write: Callable[[dict[str, Tensor], Path], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        write({"classifier.weight": torch.ones(64, 64), "classifier.bias": torch.ones(64)}, path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return apply


def edited(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return apply


def configured(text: str | None = None, **changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, **changes}) if text is None else text)

    return apply


def set_item(name: str, index: Any, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[name][index] = value

    return change


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[name] = tensor

    return change


def drop(part: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if part in name]:
            del state[name]

    return change


def index_of(text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(text)

    return apply


ST, BIN = "model.safetensors", "pytorch_model.bin"
QUERY = "transformer.encoder.layers.1.attention.query.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), ": no config.json; a checkpoint has one"),
    "config not JSON": (configured("{"), "/config.json:1: not valid JSON"),
    "config not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "/config.json: not a text file in"),
    "config a list": (configured("[]"), "/config.json: must hold a JSON object"),
    "config of BERT": (configured(model_type="bert"), "/config.json: model_type is 'bert'"),
    "config with a wrong type": (configured(hidden_size="big"), "/config.json: hidden_size must be a positive"),
    "extra of a wrong type": (configured(squeezebert=3), "/config.json: squeezebert must hold a JSON object"),
    "no weights": (lambda folder: (folder / ST).unlink(), ": no weights; a checkpoint has model.safetensors or"),
    "empty safetensors": (broken(b"", ST), "/model.safetensors: empty file"),
    "empty bin": (broken(b"", BIN), "/pytorch_model.bin: empty file"),
    "truncated safetensors": (broken(halved(save_file), ST), "/model.safetensors: truncated, or not a safetensors"),
    "truncated bin": (broken(halved(torch.save), BIN), "/pytorch_model.bin: truncated, or not a PyTorch file"),
    "truncated bin of old": (broken(halved(write_legacy), BIN), "/pytorch_model.bin: truncated, or not a PyTorch"),
    "garbage safetensors": (broken(bytes(range(256)) * 4, ST), "/model.safetensors: truncated, or not a safetens"),
    "garbage bin": (broken(bytes(range(256)) * 4, BIN), "/pytorch_model.bin: truncated, or not a PyTorch file"),
    "a web page": (broken(b"<!DOCTYPE html>", BIN), "/pytorch_model.bin: truncated, or not a PyTorch file"),
    "git-lfs pointer": (broken(b"version https://git-lfs.github.com/spec/v1\n", ST), "/model.safetensors: a git-lfs p"),
    "pickle with code": (broken(pickle.dumps(Evil(), 2), BIN), "/pytorch_model.bin: holds Python objects that"),
    "bin with code": (
        broken(lambda path: torch.save({"classifier.bias": Evil()}, path), BIN),
        "/pytorch_model.bin: holds Python objects that could run code, not only tensors; refused",
    ),
    "bin with a list": (broken(lambda path: torch.save([torch.ones(1)], path), BIN), "/pytorch_model.bin: not a st"),
    "bin with a whole run": (
        broken(lambda path: torch.save({"model": {"a": torch.ones(1)}, "step": 3}, path), BIN),
        "/pytorch_model.bin: not a state dict, which maps names to tensors",
    ),
    "index not JSON": (index_of("{"), "/model.safetensors.index.json:1: not valid JSON"),
    "index without map": (index_of("{}"), "/model.safetensors.index.json: weight_map must map"),
    "index to a missing shard": (index_of('{"weight_map": {"a": "b.safetensors"}}'), "/b.safetensors: no such file"),
    "index out of the folder": (
        index_of('{"weight_map": {"a": "../b.safetensors"}}'),
        "/model.safetensors.index.json: '../b.safetensors' is not the name of a weight file beside it",
    ),
    "wrong shape": (
        edited(put(QUERY, torch.ones(32, 8, 1))),
        f": {QUERY} is [32, 8, 1], but config.json asks for [32, 16, 1]",
    ),
    "classifier of another number of labels": (
        edited(put("classifier.weight", torch.ones(3, 32))),
        ": classifier.weight is [3, 32], but config.json asks for [2, 32]",
    ),
    "whole numbers": (edited(put("classifier.bias", torch.ones(2).int())), ": classifier.bias holds torch.int32"),
    "NaN": (edited(set_item(QUERY, (3, 2, 0), float("nan"))), f": {QUERY} has values that are not finite"),
    "infinity": (edited(set_item("classifier.bias", 0, float("inf"))), ": classifier.bias has values that are not"),
    "a layer missing": (
        edited(drop("layers.1.")),
        ": 16 weights that config.json asks for missing (transformer.encoder.layers.1.attention.query.weight, ",
    ),
    "one weight missing": (
        edited(drop("embeddings.LayerNorm.bias")),
        ": 1 weight that config.json asks for missing (transformer.embeddings.LayerNorm.bias)",
    ),
    "another model's weights": (
        lambda folder: save_file({"bert.pooler.dense.bias": torch.ones(3)}, folder / ST),
        ": 37 weights that config.json asks for missing (transformer.embeddings.word_embeddings.weight, ",
    ),
    "more layers than stored": (configured(num_hidden_layers=3), ": 16 weights that config.json asks for missing"),
    "a weight twice": (
        edited(put("pooler.dense.bias", torch.ones(32))),
        ": transformer.pooler.dense.bias and pooler.dense.bias are the same parameter; keep one of them",
    ),
    "vocabulary too large": (
        lambda folder: (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *(f"w{n}" for n in range(95))])),
        ": wrong vocabulary: 100 tokens, but the model was made for 96",
    ),
    "vocabulary of another model": (
        lambda folder: (
            configured(real_vocab_size=20)(folder),
            (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS])),
        )[0],
        ": wrong vocabulary: 15 tokens, but the model was made for 20",
    ),
    "no vocabulary at all": (lambda f: (f / "vocab.txt").write_bytes(b"\x00\x01"), "/vocab.txt:1: holds a NUL byte"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_it(tmp_path: Path, fault: str) -> None:
    folder = fresh(tmp_path / "m")
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(InputError) as error:
        load(folder)
    assert str(error.value).startswith(f"{folder}{message}"), error.value
    assert "\n" not in str(error.value)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    fresh(tmp_path / "m")
    with pytest.raises(InputError, match="is a file; give the folder that holds it"):
        load(tmp_path / "m" / "model.safetensors")
    with pytest.raises(InputError, match="is a file; give a folder to write to"):
        save(our_model("encoder"), tmp_path / "m" / "config.json")


def test_an_untied_decoder_is_refused_where_it_matters(tmp_path: Path) -> None:
    state = their_model("masked_lm", "published").state_dict()
    state["cls.predictions.decoder.weight"] = state["cls.predictions.decoder.weight"] + 1
    folder = write_published(tmp_path, state)
    with pytest.raises(InputError, match="the decoder differs from the word embedding"):
        load(folder, "masked_lm")
    load(folder, "encoder")


def test_a_wrapped_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unwrap it first"):
        save(torch.nn.Sequential(), tmp_path / "m")


# ---------------------------------------------------------------- writing


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_save_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    folder = tmp_path / "out" / "m"
    if exists:
        fresh(folder)
        (folder / "metrics.json").write_text("{}")
    before = contents(folder) if exists else {}

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        save(our_model("encoder"), folder)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(folder / "model.safetensors")
    assert (contents(folder) if folder.exists() else {}) == before
    assert [file.name for file in (tmp_path / "out").iterdir()] == (["m"] if exists else [])


def test_saving_into_a_folder_keeps_its_other_files(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "m", "masked_lm")
    (folder / "metrics.json").write_text("{}")
    ours = our_model("sequence_classification")
    save(ours, folder)
    assert sorted(contents(folder)) == ["config.json", "metrics.json", "model.safetensors"]
    assert torch.equal(load(folder).model.get_parameter("classifier.weight"), ours.classifier.weight)


@pytest.mark.parametrize("head", ["masked_lm", "sequence_classification", "encoder"])
def test_convert_keeps_every_bit_and_adds_nothing(tmp_path: Path, head: str) -> None:
    theirs = their_model(head, "published")
    state = {name: tensor for name, tensor in theirs.state_dict().items() if head != "encoder" or "pooler" not in name}
    folder = write_published(tmp_path / "in", state)
    (folder / "order.json").write_text('{"channels": [1, 0]}')  # how a cut model's channels stand
    report = checkpoint.convert(folder, tmp_path / "out")
    assert report.head == head
    assert json.loads((tmp_path / "out" / "order.json").read_text()) == {"channels": [1, 0]}
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == {name for name in state if "decoder" not in name}
    for name, tensor in written.items():
        assert torch.equal(tensor, state[name]), name
    _, info = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    lacking = {"pooler.dense.weight", "pooler.dense.bias"} if head == "encoder" else set()
    assert set(info["missing_keys"]) == lacking
    assert not info["unexpected_keys"]


def test_convert_between_number_formats(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "m")
    checkpoint.convert(folder, tmp_path / "half", dtype="fp16")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    checkpoint.convert(tmp_path / "half", tmp_path / "full")
    full = load_file(tmp_path / "full" / "model.safetensors")
    for name, tensor in full.items():
        assert torch.equal(tensor, half[name].float()), name
    edited(set_item("classifier.bias", 0, 1e6))(folder)
    with pytest.raises(InputError, match=r"classifier\.bias has values beyond fp16's largest, 65504; use fp32"):
        checkpoint.convert(folder, tmp_path / "never", dtype="fp16")
    assert not (tmp_path / "never").exists()


def test_convert_in_place(tmp_path: Path) -> None:
    theirs = their_model("sequence_classification", "published")
    folder = write_published(tmp_path / "m", theirs.state_dict())
    checkpoint.convert(folder, folder, labels=["no", "yes"])
    loaded = load(folder)
    assert loaded.config.labels == ("no", "yes")
    assert_same_outputs(loaded.model, theirs, "sequence_classification")


def test_convert_refuses_a_size_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiny: a size name stands for random weights"):
        checkpoint.convert("tiny", tmp_path / "m")
