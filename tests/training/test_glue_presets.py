from __future__ import annotations

from pathlib import Path

import pytest

from squeezebert.errors import InputError
from squeezebert.training.glue_presets import DISTILLATION, NINE, load_presets, preset_names
from squeezebert.training.settings import FinetuneSettings


@pytest.mark.parametrize("name", preset_names())
def test_every_table_has_all_tasks_with_sources_and_settings_that_finetuning_takes(name: str) -> None:
    presets = load_presets(name)
    assert set(presets) == set(NINE)
    for task, preset in presets.items():
        plain = {key: value for key, value in preset.settings.items() if key not in DISTILLATION}
        assert {"learning_rate", "dropout", "epochs", "batch_size"} <= set(plain)
        FinetuneSettings(model="base", output=Path("x"), task=task, **plain)
        assert preset.source
        # The paper started CoLA from the encoder, the others from MNLI's student.
        assert preset.start == ("encoder" if task == "cola" else "mnli")


def test_there_are_nine_tasks() -> None:
    assert sorted(NINE) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
    assert preset_names() == ["base", "small", "small-laptop"]


def test_the_models_card_decides_mrpc() -> None:
    settings = load_presets("base")["mrpc"].settings
    assert (settings["learning_rate"], settings["batch_size"], settings["epochs"]) == (3e-5, 16, 10)


def _table(**changes: str) -> str:
    tables = {"defaults": "epochs = 1", **dict.fromkeys(NINE, 'source = "here"'), **changes}
    return "".join(f"[{name}]\n{text}\n" for name, text in tables.items())


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(_table(rte='epochs = 7\nsource = "there"', defaults='epochs = 1\nsource = "everywhere"'))
    presets = load_presets(str(path))
    assert presets["rte"].settings == {"epochs": 7}
    assert presets["rte"].source == "there; everywhere"
    assert presets["cola"].settings == {"epochs": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "not valid TOML"),
        (_table(sst5="epochs = 1"), "sst5 is unknown"),
        (_table().replace("[rte]", "[ rte ]\nlr = 1"), "rte.lr is unknown; there are learning_rate"),
        (_table(rte="epochs = 2"), "rte.source is missing"),
        (_table(rte='source = ""\nstart = "sst2"'), "rte.start must be mnli or encoder, not 'sst2'"),
        ("", r"no table \[cola\]"),
        (_table(rte='source = ""\nlearning_rate = "fast"'), "rte: learning_rate must be a number, not 'fast'"),
        (_table(rte='source = ""\nalpha = 1.5'), "rte: alpha must be within 0..1, not 1.5"),
        (_table(defaults="epochs = 0"), "cola: epochs must be at least 1, not 0"),
        ("caf\xe9", "not a text file in UTF-8"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"mine\.toml: {message}"):
        load_presets(str(path))


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(InputError, match="presets 'huge' are unknown; use one of base, small, small-laptop, or a"):
        load_presets("huge")
