"""The training loop: one visible loop over accelerate, for finetuning, pretraining and distillation.

A step's global batch is defined first. Each process takes its share of it, in ``accumulation`` micro-batches, and the
loss is the mean over the *global* batch, so gradients do not depend on the number of processes. Whatever is random in a
step depends on (seed, step, process) alone, so a resumed run needs no more than the number of the step.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from squeezebert.errors import DivergedError, InputError
from squeezebert.host import keep_freed_memory
from squeezebert.training.progress import Figures, Reporter
from squeezebert.training.row_gradients import RowGradients
from squeezebert.training.state import KEPT, Evaluation, Progress, latest_state, load_state, save_state

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)


class Source(Protocol[B_co]):
    """Batches by the number of their step."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps that make a pass over the data."""
        ...

    def examples(self, step: int) -> NDArray[np.int64]:
        """Positions of the examples of a step's global batch."""
        ...

    def batch(self, step: int, examples: NDArray[np.int64]) -> B_co:
        """Stack some of them. Called from a thread of its own, one step ahead."""
        ...


class Objective(Protocol[B_contra]):
    """The loss: terms, each of which is averaged over the global batch by its own count."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the terms."""
        ...

    def count(self, batch: B_contra) -> Sequence[float]:
        """What each term is averaged over: the number of examples, or of masked tokens."""
        ...

    def tokens(self, batch: B_contra) -> int:
        """Number of tokens without padding, to report the speed."""
        ...

    def __call__(self, model: nn.Module, batch: B_contra) -> Tensor:
        """Sum of each term over a batch. *Shape:* ``[terms]``, with gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop runs."""

    total_steps: int
    """Optimizer steps."""
    evaluate_every: int
    """Optimizer steps between evaluations; the last step is followed by one, too."""
    save_every: int
    """Optimizer steps between training states; every evaluation is followed by one, too."""
    seed: int
    """Seed of everything random in a step."""
    clip: float = 1.0
    """Largest global norm of the gradient; 0: any."""
    accumulation: int = 1
    """Micro-batches into which a process cuts its share of a batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of activations."""
    patience: int = 0
    """Evaluations without a better score after which training stops; 0: never."""
    log_every: int = 10
    """Optimizer steps between looks at loss and gradient norm; each look waits for the device."""
    keep: int = KEPT
    """Newest training states that stay on disk."""
    divergence: float = 0.0
    """Rise of ``watch`` above its lowest so far, between two looks, at which the run counts as lost; 0: none."""
    watch: str = "loss"
    """Figure that ``divergence`` is about: the loss, or one of its terms."""
    deadline: float = math.inf
    """Moment of ``time.monotonic()`` after which the run stops with a saved state."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM asked the run to stop; its state is saved."""


def make_accelerator(device: Literal["auto", "cpu", "cuda"] = "auto") -> Accelerator:
    """Find the device and, under torchrun, the other processes.

    Raises:
        InputError: The GPU asked for is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("settings: device is cuda, but torch finds no GPU here; use auto or cpu")
    if not torch.distributed.is_initialized():
        # accelerate keeps its first device for the life of a process; a later run may ask for another.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        keep_freed_memory()
    return Accelerator(
        cpu=on_cpu,
        # The loop applies the precision itself, so that one process can train in both.
        mixed_precision="no",
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def fit(
    *,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    learning_rate_at: Callable[[int], float],
    source: Source[B],
    objective: Objective[B],
    evaluate: Callable[[], tuple[float, Figures]],
    keep_best: Callable[[Evaluation], None],
    settings: LoopSettings,
    folder: Path,
    title: str = "train",
    gauge: Callable[[int, Mapping[str, float]], Mapping[str, float]] | None = None,
    prepare: Callable[[int], None] | None = None,
) -> Progress:
    """Train; a run that was interrupted in ``folder`` goes on from its latest state.

    Args:
        accelerator: From :func:`make_accelerator`.
        model: On the accelerator's device.
        optimizer: Of the model's parameters.
        learning_rate_at: Step, counted from 0 -> learning rate.
        source: The batches.
        objective: The loss.
        evaluate: Scores the model, which is in evaluation mode. Gives the score to select by, larger being better, and
            figures by data set and name. Called in every process.
        keep_best: Called in the first process after an evaluation that is the best so far, and once more if the run
            is resumed there.
        settings: How to run.
        folder: Where states, log and events go.
        title: What opens the lines of progress.
        gauge: Steps taken and their figures -> further figures to report.
        prepare: Called with every step, counted from 0, before it is computed.

    Returns:
        How far the run came, and its evaluations.

    Raises:
        InputError: The processes found different states; or loss, gradient or a score became NaN or infinite, or the
            loss diverged; the message names the step and the last state.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    progress = Progress()
    saved = latest_state(folder / "state")
    if saved is not None:
        progress = load_state(saved, model, optimizer)
    # Nobody may save before everybody has read.
    accelerator.wait_for_everyone()
    _check_shared(accelerator, progress.step, folder)
    is_main = accelerator.is_main_process
    trained = accelerator.prepare_model(model)
    rows = RowGradients(model, enabled=accelerator.device.type == "cpu" and accelerator.num_processes == 1)
    reporter = Reporter(
        folder, title=title, total_steps=settings.total_steps, steps_per_epoch=source.steps_per_epoch,
        first_step=progress.step, enabled=is_main,
    )  # fmt: skip
    try:
        if _is_best_now(progress):
            # The former session may have ended after saving the state, before keeping the model.
            model.eval()
            evaluate()
            if is_main:
                keep_best(progress.evaluations[-1])
        window = _Window()
        with _signals() as asked:
            for step, share in _shares(source, objective, accelerator, settings, progress.step):
                if _out_of_patience(progress, settings):
                    reporter.say(f"{title}  stopped after step {step:,}: no better in {settings.patience} evaluations")
                    break
                learning_rate = learning_rate_at(step)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                if prepare is not None:
                    prepare(step)
                torch.manual_seed(_step_seed(settings.seed, step, accelerator.process_index))
                model.train()
                terms = _backward(accelerator, trained, objective, share, settings.precision)
                rows.gather()
                norm = _clip(optimizer, settings.clip)
                optimizer.step()
                optimizer.zero_grad()
                progress.step = step + 1
                progress.examples += share.global_examples
                window.add(terms, norm, share)

                evaluating = progress.step % settings.evaluate_every == 0 or progress.step == settings.total_steps
                saving = evaluating or progress.step % settings.save_every == 0
                logging = saving or progress.step % settings.log_every == 0
                late = time.monotonic() > settings.deadline
                if not logging and not ((asked or late) and accelerator.num_processes == 1):
                    continue
                interrupted = _in_any_process(accelerator, bool(asked))
                stopping = interrupted or _in_any_process(accelerator, late)
                figures = window.close(accelerator, objective.names, progress.step, saved)
                progress.seconds += window.seconds
                _check_divergence(progress, figures[settings.watch], settings, saved)
                figures["learning_rate"] = learning_rate
                reporter.training(progress.step, {**figures, **(gauge(progress.step, figures) if gauge else {})})
                if evaluating:
                    model.eval()
                    score, scores = evaluate()
                    _check_scores(scores, progress.step, saved)
                    progress.evaluations.append(
                        Evaluation(progress.step, progress.step / source.steps_per_epoch, score, scores)
                    )
                    reporter.evaluation(progress.step, scores, best=_is_best_now(progress))
                if saving or stopping:
                    saved = save_state(folder / "state", model, optimizer, progress, kept=settings.keep, write=is_main)
                    accelerator.wait_for_everyone()
                if evaluating and is_main and _is_best_now(progress):
                    keep_best(progress.evaluations[-1])
                if interrupted:
                    raise Interrupted(f"stopped after step {progress.step:,}, saved in {saved}")
                if stopping:
                    break
                window = _Window()
        return progress
    finally:
        rows.release()
        reporter.close()


@dataclass
class _Share(Generic[B]):
    """What one process computes in a step."""

    micro_batches: list[B]
    counts: list[float]
    """What each term sums over in this process; zeros where it only keeps step with the others."""
    tokens: int
    global_examples: int


def _shares(
    source: Source[B], objective: Objective[B], accelerator: Accelerator, settings: LoopSettings, first_step: int
) -> Iterator[tuple[int, _Share[B]]]:
    """Every step and this process's share of it; the next is made while the present one is computed."""
    parts = accelerator.num_processes * settings.accumulation

    def make(step: int) -> _Share[B]:
        examples = source.examples(step)
        # Every parts-th example: neighbours are of like length, so all shares cost about the same.
        mine = [examples[part::parts] for part in range(accelerator.process_index, parts, accelerator.num_processes)]
        mine = [part for part in mine if len(part)]
        batches = [source.batch(step, part) for part in mine or [examples[:1]]]
        counts = np.sum([objective.count(batch) for batch in batches], axis=0) * bool(mine)
        return _Share(batches, counts.tolist(), sum(map(objective.tokens, batches)) * bool(mine), len(examples))

    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(make, first_step) if first_step < settings.total_steps else None
        for step in range(first_step, settings.total_steps):
            assert pending is not None
            share = pending.result()
            pending = thread.submit(make, step + 1) if step + 1 < settings.total_steps else None
            yield step, share


def _backward(
    accelerator: Accelerator, model: nn.Module, objective: Objective[B], share: _Share[B], precision: str
) -> Tensor:
    """Compute the gradients of the global mean loss.

    Returns:
        This process's part of the mean of each term. *Shape:* ``[terms]``.
    """
    device = accelerator.device
    counts = torch.tensor(share.counts, dtype=torch.float32, device=device)
    totals = accelerator.reduce(counts) if accelerator.num_processes > 1 else counts
    # A share that only keeps step has counts of zero, and must not add to the loss.
    weights = (counts > 0) / totals.clamp(min=1)
    done = torch.zeros_like(counts)
    for number, batch in enumerate(share.micro_batches, start=1):
        # Gradients are averaged over processes once, with the last micro-batch.
        last = number == len(share.micro_batches)
        with nullcontext() if last else accelerator.no_sync(model):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                terms = objective(model, batch) * weights
            # Averaging divides by the number of processes, but the shares are to be summed.
            (terms.sum() * accelerator.num_processes).backward()
        done += terms.detach()
    return done


def _clip(optimizer: Optimizer, limit: float) -> Tensor:
    """Scale the gradients down to a global norm of ``limit``; returns the norm that they had."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # On a CPU a look at the norm is free, and saves a pass over all gradients where they are small enough.
    if limit and (norm.device.type != "cpu" or not norm <= limit):
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def _step_seed(seed: int, step: int, process: int) -> int:
    """A seed for one step in one process, unlike all others."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0])


class _Window:
    """Losses and norms since the last look; they stay on the device until then."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._terms: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._examples = 0
        self._tokens = 0
        self.seconds = 0.0

    def add(self, terms: Tensor, norm: Tensor, share: _Share[Any]) -> None:
        """Take note of a step."""
        self._terms.append(terms)
        self._norms.append(norm)
        self._examples += share.global_examples
        self._tokens += share.tokens

    def close(self, accelerator: Accelerator, names: Sequence[str], step: int, saved: Path | None) -> dict[str, float]:
        """Look at the steps up to ``step``.

        Raises:
            DivergedError: A loss or a norm is not finite.
        """
        terms = torch.stack(self._terms)
        tokens = torch.tensor([float(self._tokens)], device=terms.device)
        if accelerator.num_processes > 1:
            terms, tokens = accelerator.reduce((terms, tokens))
        values = torch.cat([terms, torch.stack(self._norms)[:, None].to(terms)], 1).cpu().numpy()
        self.seconds = time.perf_counter() - self._start
        wrong = np.flatnonzero(~np.isfinite(values).all(1))
        if len(wrong):
            first = step - len(values) + 1 + int(wrong[0])
            raise DivergedError(
                f"step {first}: loss or gradient is not a finite number; try a lower learning rate "
                f"({_describe_state(saved)})"
            )
        means = values[:, :-1].mean(0).tolist()
        return {
            "loss": sum(means),
            **(dict(zip(names, means, strict=True)) if len(names) > 1 else {}),
            "gradient_norm": float(values[:, -1].mean()),
            "examples_per_second": self._examples / self.seconds,
            "tokens_per_second": float(tokens) / self.seconds,
        }


def _check_divergence(progress: Progress, loss: float, settings: LoopSettings, saved: Path | None) -> None:
    """Stop a run whose loss has risen too far.

    Raises:
        DivergedError: It has; the message names the last state.
    """
    lowest = loss if progress.lowest_loss is None else progress.lowest_loss
    progress.lowest_loss = min(lowest, loss)
    if settings.divergence and loss > lowest + settings.divergence:
        raise DivergedError(
            f"step {progress.step}: loss {loss:.2f} after {lowest:.2f} before, the run has diverged; "
            f"try a lower learning rate ({_describe_state(saved)})"
        )


def _check_scores(scores: Figures, step: int, saved: Path | None) -> None:
    """Stop a run whose model gives nothing that can be scored.

    Raises:
        InputError: A figure is not finite; the message names the last state.
    """
    for split, figures in scores.items():
        for name, value in figures.items():
            if not math.isfinite(value):
                raise InputError(
                    f"step {step}: {split} {name} is {value}; try a lower learning rate, or smaller values "
                    f"({_describe_state(saved)})"
                )


def _describe_state(saved: Path | None) -> str:
    return "no state was saved yet" if saved is None else f"the last good state is {saved}"


def _is_best_now(progress: Progress) -> bool:
    """Whether the run stands just after its best evaluation."""
    return progress.best is not None and progress.best.step == progress.step


def _out_of_patience(progress: Progress, settings: LoopSettings) -> bool:
    return 0 < settings.patience <= progress.evaluations_since_best


def _check_shared(accelerator: Accelerator, step: int, folder: Path) -> None:
    """Refuse to train from different steps: only the first process writes states, and all have to read them.

    Raises:
        InputError: The processes do not see the same folder.
    """
    if accelerator.num_processes == 1:
        return
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise InputError(
            f"{folder}: the processes found states of different steps there ({', '.join(map(str, steps))}); "
            "choose a folder on a disk that all hosts share"
        )


def _in_any_process(accelerator: Accelerator, flag: bool) -> bool:
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device)) > 0)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one of a kind acts as usual."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    former: dict[int, Any] = {}

    def take_note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, former[number])

    for signal_ in (signal.SIGINT, signal.SIGTERM):
        former[signal_] = signal.signal(signal_, take_note)
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
