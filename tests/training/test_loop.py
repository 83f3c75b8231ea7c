from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.data.collate import Batch
from squeezebert.data.examples import Example
from squeezebert.errors import InputError
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import SqueezeBertForSequenceClassification
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.batches import EncodedExamples, EpochBatches
from squeezebert.training.loop import Interrupted, LoopSettings, _check_shared, fit, make_accelerator
from squeezebert.training.losses import ClassificationLoss
from squeezebert.training.optimizer import build_optimizer
from squeezebert.training.progress import read_log
from squeezebert.training.row_gradients import LARGE
from squeezebert.training.state import Evaluation, Progress

_TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"])
# 11 examples in batches of 4: the third batch of an epoch has 3.
_EXAMPLES = EncodedExamples(
    [Example(" ".join("abcdefgh"[: 1 + number % 8]), None, number % 2) for number in range(11)], _TOKENIZER, 16
)
_STEPS = 9


def _model(dropout: float = 0.1) -> SqueezeBertForSequenceClassification:
    torch.manual_seed(0)
    # Rows enough for the embedding's gradients to go by rows.
    config = ModelConfig(
        vocab_size=LARGE // 16, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=16, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )  # fmt: skip
    return SqueezeBertForSequenceClassification(config)


def _fit(
    folder: Path,
    *,
    dropout: float = 0.1,
    objective: Any = None,
    scores: Callable[[int], float] = float,
    keep: Callable[[Evaluation], None] = lambda evaluation: None,
    **settings: Any,
) -> tuple[nn.Module, Progress]:
    """Train for nine steps, with an evaluation every third and a state every second."""
    accelerator = make_accelerator("cpu")
    model = _model(dropout)
    evaluations = 0

    def evaluate() -> tuple[float, dict[str, dict[str, float]]]:
        nonlocal evaluations
        evaluations += 1
        assert not model.training
        return scores(evaluations), {"dev": {"figure": scores(evaluations)}}

    values: dict[str, Any] = {"total_steps": _STEPS, "evaluate_every": 3, "save_every": 2, "seed": 7, "log_every": 1}
    progress = fit(
        accelerator=accelerator,
        model=model,
        optimizer=build_optimizer(model, learning_rate=1e-2, weight_decay=0.1),
        learning_rate_at=lambda step: 1e-2 * (1 - step / _STEPS),
        source=EpochBatches(_EXAMPLES, 4, seed=7),
        objective=objective or ClassificationLoss(accelerator.device),
        evaluate=evaluate,
        keep_best=keep,
        settings=LoopSettings(**{**values, **settings}),
        folder=folder,
    )
    return model, progress


def _equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def _assert_close(ours: nn.Module, expected: nn.Module) -> None:
    for name, value in expected.state_dict().items():
        # The softmax takes no notice of the key's bias, so its gradient is rounding, which AdamW makes a full step of.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


class _Disturbed(ClassificationLoss):
    """The usual loss, but something happens in one step."""

    def __init__(self, step: int, event: Callable[[Tensor], Tensor]) -> None:
        super().__init__(torch.device("cpu"))
        self._left = step
        self._event = event

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        self._left -= 1
        terms = super().__call__(model, batch)
        return self._event(terms) if self._left == 0 else terms


def test_the_steps_are_those_of_a_loop_written_out(tmp_path: Path) -> None:
    ours, _ = _fit(tmp_path, dropout=0.0, clip=0.5)
    model = _model(dropout=0.0)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-2, eps=1e-6
    )
    batches = EpochBatches(_EXAMPLES, 4, seed=7)
    losses = []
    for step in range(_STEPS):
        batch = _EXAMPLES.collate(batches.examples(step))
        # Padded, and with autograd's own gradient of the embedding.
        ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
        loss = F.cross_entropy(model(ids, mask).logits, torch.from_numpy(np.asarray(batch.labels)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / _STEPS)
        optimizer.step()
        losses.append(loss.item())
    logged = [line["loss"] for line in read_log(tmp_path) if "loss" in line]
    np.testing.assert_allclose(logged, losses, rtol=1e-5)
    _assert_close(ours, model)


@pytest.mark.parametrize("accumulation", [2, 3, 4])
def test_micro_batches_give_the_same_steps(tmp_path: Path, accumulation: int) -> None:
    whole, _ = _fit(tmp_path / "whole", dropout=0.0)
    parts, _ = _fit(tmp_path / "parts", dropout=0.0, accumulation=accumulation)
    _assert_close(parts, whole)


def test_every_random_choice_follows_seed_and_step(tmp_path: Path) -> None:
    one, _ = _fit(tmp_path / "one")
    torch.rand(100)
    again, _ = _fit(tmp_path / "again")
    other, _ = _fit(tmp_path / "other", seed=8)
    assert _equal(one, again)
    assert not _equal(one, other)


def test_the_log_has_the_learning_rate_of_every_step(tmp_path: Path) -> None:
    _fit(tmp_path)
    logged = [(line["step"], line["learning_rate"]) for line in read_log(tmp_path) if "loss" in line]
    assert logged == [(step + 1, 1e-2 * (1 - step / _STEPS)) for step in range(_STEPS)]
    assert any((tmp_path / "tensorboard").iterdir())


def test_evaluations_come_when_due_and_at_the_end(tmp_path: Path) -> None:
    _, progress = _fit(tmp_path, evaluate_every=4)
    assert [evaluation.step for evaluation in progress.evaluations] == [4, 8, 9]
    assert progress.evaluations[0].epoch == pytest.approx(4 / 3)
    assert progress.examples == 33


def test_only_better_models_are_kept(tmp_path: Path) -> None:
    kept: list[int] = []
    _fit(tmp_path, scores=lambda number: [0.0, 2.0, 1.0, 3.0][number], keep=lambda e: kept.append(e.step))
    assert kept == [3, 9]


def test_patience_ends_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, progress = _fit(tmp_path, scores=lambda number: -number, evaluate_every=1, patience=2)
    assert progress.step == 3
    assert "no better in 2 evaluations" in capsys.readouterr().err


@pytest.mark.parametrize("event", [lambda terms: terms * float("nan"), lambda terms: terms * float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, event: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError) as caught:
        _fit(tmp_path, objective=_Disturbed(6, event), log_every=5)
    message = str(caught.value)
    assert message.startswith("step 6: loss or gradient is not a finite number")
    assert str(tmp_path / "state" / "step-00000004") in message
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-00000003", "step-00000004"]


def test_processes_that_do_not_share_a_disk_are_told(tmp_path: Path) -> None:
    def processes(*steps: int) -> Any:
        return SimpleNamespace(num_processes=len(steps), device="cpu", gather=lambda step: torch.tensor(steps))

    _check_shared(processes(7, 7), 7, tmp_path)
    with pytest.raises(InputError, match=r"states of different steps there \(7, 0\); choose a folder on a disk that"):
        _check_shared(processes(7, 0), 7, tmp_path)


def test_a_score_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^step 6: dev figure is nan; try a lower .*step-00000004\)$"):
        _fit(tmp_path, scores=lambda number: float("nan") if number == 2 else 1.0)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [5, 6])
def test_a_signal_saves_the_state_and_the_run_goes_on(tmp_path: Path, number: int, step: int) -> None:
    def interrupt(terms: Tensor) -> Tensor:
        os.kill(os.getpid(), number)
        return terms

    whole, _ = _fit(tmp_path / "whole")
    former = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"step {step}"):
        _fit(tmp_path / "broken", objective=_Disturbed(step, interrupt), save_every=100, log_every=100)
    assert signal.getsignal(number) is former
    assert (tmp_path / "broken" / "state" / f"step-{step:08d}").is_dir()
    resumed, _ = _fit(tmp_path / "broken")
    assert _equal(resumed, whole)
    logged = [line["step"] for line in read_log(tmp_path / "broken") if "loss" in line]
    assert logged == [*sorted({3, step}), *range(step + 1, _STEPS + 1)]


class _Killed(BaseException):
    """Stands for kill -9: nothing may run after it but what a new process does."""


def test_a_run_that_dies_while_keeping_the_best_model_keeps_it_when_resumed(tmp_path: Path) -> None:
    whole, _ = _fit(tmp_path / "whole")

    def die(evaluation: Evaluation) -> None:
        if evaluation.step == 6:
            raise _Killed

    with pytest.raises(_Killed):
        _fit(tmp_path / "broken", keep=die)
    kept: list[int] = []
    resumed, _ = _fit(
        tmp_path / "broken", keep=lambda evaluation: kept.append(evaluation.step), scores=lambda n: 10 + n
    )
    assert kept == [6, 9]
    assert _equal(resumed, whole)


@pytest.mark.parametrize("step", [1, 2, 4, 7, 9])
def test_a_run_that_dies_in_any_step_ends_with_the_same_weights(tmp_path: Path, step: int) -> None:
    def die(terms: Tensor) -> Tensor:
        raise _Killed

    whole, _ = _fit(tmp_path / "whole")
    with pytest.raises(_Killed):
        _fit(tmp_path / "broken", objective=_Disturbed(step, die))
    resumed, progress = _fit(tmp_path / "broken")
    assert _equal(resumed, whole)
    assert progress.step == _STEPS
    steps = [line["step"] for line in read_log(tmp_path / "broken") if "loss" in line]
    assert steps == list(range(1, _STEPS + 1))


def test_a_log_line_cut_short_is_dropped(tmp_path: Path) -> None:
    _fit(tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    assert read_log(tmp_path)[-1]["evaluation"] == {"dev": {"figure": 3.0}}


def test_bf16_trains_close_to_fp32(tmp_path: Path) -> None:
    fp32, _ = _fit(tmp_path / "fp32", dropout=0.0)
    bf16, _ = _fit(tmp_path / "bf16", dropout=0.0, precision="bf16")
    assert not _equal(fp32, bf16)
    assert all(parameter.dtype == torch.float32 for parameter in bf16.parameters())
    losses = [[line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in ("fp32", "bf16")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)


def test_a_missing_gpu_is_one_clear_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="device is cuda"):
        make_accelerator("cuda")


def test_states_hold_json_that_can_be_read(tmp_path: Path) -> None:
    _, progress = _fit(tmp_path)
    stored = json.loads((tmp_path / "state" / "step-00000009" / "state.json").read_text())
    assert stored["progress"]["step"] == progress.step == _STEPS
    assert [each["step"] for each in stored["progress"]["evaluations"]] == [3, 6, 9]
