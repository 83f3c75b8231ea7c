from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezebert import checkpoint
from squeezebert.data.collate import Batch, collate
from squeezebert.errors import InputError
from squeezebert.model.config import ModelConfig
from squeezebert.tokenizer import Encoding
from squeezebert.training.finetune import finetune
from squeezebert.training.hidden_states import HiddenStateLoss
from squeezebert.training.losses import forward
from squeezebert.training.settings import FinetuneSettings

from .conftest import write_reviews
from .teachers import save_roberta

Make = Callable[..., FinetuneSettings]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def teacher(settings: Make, tmp_path: Path) -> Path:
    """A classifier of the student's own kind, and so with its vocabulary."""
    folder = tmp_path / "teacher"
    finetune(settings(output=folder, epochs=6, seeds=(7,)))
    return folder


def _batch() -> Batch:
    draw = np.random.default_rng(0)
    encodings = [
        Encoding(draw.integers(5, 60, length).tolist(), draw.integers(0, 2, length).tolist(), None)
        for length in (3, 17, 9)
    ]
    return collate(encodings, indices=range(3), unpad=True)


def _loss(source: Path, config: ModelConfig, **changes: float) -> HiddenStateLoss:
    tokenizer = checkpoint.load(source).tokenizer
    assert tokenizer is not None
    options = {"max_length": 64, "weight": 1.0, **changes}
    return HiddenStateLoss(str(source), config, tokenizer, device=CPU, **options)  # type: ignore[arg-type]


def test_distance_by_hand_leaves_padding_out(teacher: Path) -> None:
    model = checkpoint.load(teacher, "encoder").model.eval()
    other = checkpoint.load("tiny", "encoder", vocab_size=model.config.vocab_size).model.eval()  # type: ignore[union-attr]
    batch = _batch()
    loss = _loss(teacher, model.config, weight=2.0)  # type: ignore[arg-type]
    loss.calibrate(batch)
    with torch.inference_mode():
        theirs = forward(model, batch, CPU, hidden_states=True).hidden_states
        ours = forward(other, batch, CPU, hidden_states=True).hidden_states
        assert loss(theirs, batch) == 0
        got = float(loss(ours, batch))
    real_BT = torch.from_numpy(batch.attention_mask).bool()
    want = 0.0
    for s, t in zip(ours, theirs, strict=True):
        s, t = s[real_BT].double(), t[real_BT].double()
        want += float(((s - t) ** 2).sum() / (t**2).sum(1).mean())
    # fp32 sums of some thousand squares.
    assert got == pytest.approx(2.0 * want / len(theirs), rel=1e-4)


def test_a_student_comes_nearer_to_its_teachers_layers(settings: Make, teacher: Path, tmp_path: Path) -> None:
    texts = write_reviews(tmp_path / "more.csv", 40, offset=200)

    def distance(folder: Path) -> float:
        student = checkpoint.load(folder, "encoder")
        loss = _loss(teacher, student.config)
        batch = _batch()
        loss.calibrate(batch)
        with torch.inference_mode():
            return float(loss(forward(student.model.eval(), batch, CPU, hidden_states=True).hidden_states, batch))

    options = {
        "teacher": teacher,
        "alpha": 0.5,
        "unlabelled": texts,
        "epochs": 10,
        "evaluate_every": 10,
        "dropout": 0.0,
    }
    plain = finetune(settings(output=tmp_path / "plain", **options))
    taught = finetune(settings(output=tmp_path / "taught", hidden=1.0, **options))
    assert plain is not None
    assert taught is not None
    assert distance(taught.folder) < 0.6 * distance(plain.folder)


def test_refusals(settings: Make, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hidden goes with a teacher"):
        settings(hidden=1.0)
    with pytest.raises(InputError, match="raise alpha above 0"):
        settings(teacher=teacher, hidden=1.0, alpha=0)
    with pytest.raises(InputError, match="hidden must be at least 0"):
        settings(teacher=teacher, hidden=-1.0)
    with pytest.raises(InputError, match="of 64 channels, the student of 384"):
        _loss(teacher, checkpoint.load(teacher).config.replace(hidden_size=384, num_attention_heads=12))
    with pytest.raises(InputError, match="lower max_length from 513"):
        _loss(teacher, checkpoint.load(teacher).config, max_length=513)
    roberta = save_roberta(tmp_path / "roberta", ["a gripping film, in all"])
    with pytest.raises(InputError, match="model_type"):
        finetune(settings(output=tmp_path / "other", teacher=roberta, hidden=1.0))
    other = tmp_path / "vocabulary"
    finetune(settings(output=other, train=write_reviews(tmp_path / "few.csv", 10, offset=3), seeds=(3,), epochs=1))
    with pytest.raises(InputError, match="another vocabulary than the student's"):
        finetune(settings(output=tmp_path / "mismatch", teacher=other, hidden=1.0))
