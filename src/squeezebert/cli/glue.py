"""``squeezebert glue``: fetch the benchmark, finetune on all of it, compare, and write what its server scores."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from squeezebert.data.glue_download import BASE_URL, Progress, download
from squeezebert.data.tasks import GLUE, get_task
from squeezebert.durations import duration
from squeezebert.errors import InputError, require
from squeezebert.training.settings import Device, Precision

if TYPE_CHECKING:
    from squeezebert.evaluation.submission import SubmissionFile
    from squeezebert.training.glue_suite import SuiteSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_download(actions)
    _add_run(actions)
    _add_search(actions)
    _add_scorecard(actions)
    _add_submit(actions)
    _add_check(actions)


def run(args: argparse.Namespace) -> int | None:
    """Do what the action asks for."""
    return _ACTIONS[args.action](args)


def _add_download(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "download",
        help="fetch the official files",
        description="Fetch the official files and check them. Interrupted, it goes on where it stopped. The data sets "
        "keep the terms of their makers.",
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"what to fetch: {', '.join(GLUE)} (all)")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the files, one folder a task"
    )
    parser.add_argument(
        "--base-url", default=BASE_URL, help=f"server that has the files under the same paths ({BASE_URL})"
    )


def _download(args: argparse.Namespace) -> None:
    """Fetch, and say of each task where it is."""
    line = _Line()
    try:
        for fetched in download(
            [get_task(name) for name in args.tasks], args.output, base_url=args.base_url, progress=line.show
        ):
            line.clear()
            state = "already there" if fetched.was_there else "fetched, SHA-256 checked"
            print(f"{fetched.task.name}: {fetched.folder} ({state})", flush=True)
    finally:
        line.clear()


def _add_run(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "run",
        help="finetune a model on all tasks, and write a scorecard",
        description="Finetune a model on all tasks, and write a scorecard. Interrupted or killed, the same command "
        "goes on where it stopped; tasks that are finished are not run again.",
    )
    _add_suite_arguments(parser)
    parser.add_argument(
        "--teachers",
        metavar="FOLDER",
        help="distil from finetuned models: one in each of FOLDER/cola, FOLDER/sst2, ...",
    )
    parser.add_argument(
        "--bells-and-whistles",
        action="store_true",
        help="learn MNLI first, and start the other tasks from its student; needs --teachers",
    )


def _add_search(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "search",
        help="try learning rates and dropouts for presets",
        description="Try each learning rate with each dropout on each task, all else as in the presets. What was "
        "finished is not run again.",
    )
    _add_suite_arguments(parser)
    parser.add_argument("--learning-rates", nargs="+", type=float, required=True, metavar="X", help="peaks to try")
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.1], metavar="X", help="dropouts to try (0.1)")


def _add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="pretrained model: a folder, a hub id or a size name")
    parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="folder of the official GLUE files (fetched from the hub)"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="SUITE", help="folder for all that comes of it")
    learned = ", ".join(name for name, task in GLUE.items() if "train" in task.splits)
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"what to learn ({learned})")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="one run for each (1 2 3)")
    parser.add_argument(
        "--presets", metavar="NAME", help="table of settings: base, small or a .toml file (by the model's size)"
    )
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="auto", help="number format of activations (auto)"
    )
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="where to compute (auto)")


def _suite_settings(args: argparse.Namespace) -> SuiteSettings:
    for module in ("torch", "accelerate", "sklearn", "matplotlib"):
        require(module, "train")
    from squeezebert.training.glue_presets import NINE
    from squeezebert.training.glue_suite import SuiteSettings

    return SuiteSettings(
        model=args.model,
        output=args.output,
        data_dir=args.data_dir,
        tasks=tuple(args.tasks or NINE),
        seeds=tuple(args.seeds),
        presets=args.presets,
        precision=args.precision,
        device=args.device,
        teachers=getattr(args, "teachers", None),
        bells_and_whistles=getattr(args, "bells_and_whistles", False),
    )


def _run(args: argparse.Namespace) -> None:
    """Finetune, and print the scorecard's table."""
    settings = _suite_settings(args)
    from squeezebert.training.glue_suite import run_suite

    if run_suite(settings) is not None:
        _print_table(args.output)


def _search(args: argparse.Namespace) -> None:
    """Try, and print what was found."""
    settings = _suite_settings(args)
    from squeezebert.training.glue_suite import search

    if search(settings, args.learning_rates, args.dropouts):
        print((args.output / "search.md").read_text(encoding="utf-8"), end="")


def _add_scorecard(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "scorecard",
        help="put several suites beside each other",
        description="Put suites beside each other and beside the paper: Markdown, JSON and a picture.",
    )
    parser.add_argument(
        "suites", nargs="+", type=Path, metavar="SUITE", help="output of glue run; the first is what others are held to"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the scorecard")


def _scorecard(args: argparse.Namespace) -> None:
    """Write the scorecard, and print its table."""
    from squeezebert.evaluation.scorecard import read_suite
    from squeezebert.evaluation.scorecard_report import write_scorecard

    write_scorecard([read_suite(folder) for folder in args.suites], args.output)
    _print_table(args.output)


def _print_table(folder: Path) -> None:
    """Print the scorecard's first table."""
    text = (folder / "scorecard.md").read_text(encoding="utf-8")
    print("\n".join(line for line in text.partition("\n## ")[0].split("\n") if line.startswith("|")))
    print(f"scorecard: {folder / 'scorecard.md'}")


def _add_submit(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "submit",
        help="predict the test sets, and write the zip that the benchmark's server scores",
        description="Predict the test sets with the models of a suite, each task's best seed, and write the zip that "
        "gluebenchmark.com scores.",
    )
    parser.add_argument("suite", type=Path, metavar="SUITE", help="output of glue run")
    parser.add_argument("--output", required=True, type=Path, metavar="ZIP", help="zip to write")
    parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="folder of the official GLUE files (that of the suite)"
    )
    parser.add_argument(
        "--partial", action="store_true", help="leave out what is missing; the zip is then marked as incomplete"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts run at a time (32)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (auto: a GPU where there is one)")


def _submit(args: argparse.Namespace) -> None:
    """Predict, write and check."""
    from squeezebert.evaluation.scorecard import SUITE, read_suite
    from squeezebert.evaluation.submission import FILES, answer, read_test_set, write_submission

    if args.output.is_dir():
        raise InputError(f"{args.output}: is a folder; name the zip to write")
    suite = read_suite(args.suite)
    data_dir = args.data_dir
    if data_dir is None and suite.common["data_dir"] is not None:
        data_dir = Path(suite.common["data_dir"])
    untrained = [file for file in FILES if file.model not in suite.tasks]
    unfetched = [file for file in FILES if not _is_at_hand(file, data_dir)]
    if (untrained or unfetched) and not args.partial:
        raise InputError(_missing(untrained, unfetched, args.suite, data_dir))

    from squeezebert.runtime.predictor import Predictor

    # All are read before the first is answered, which may take hours.
    test_sets = {file.name: read_test_set(file, data_dir) for file in FILES if file not in untrained + unfetched}
    predictions = {}
    for file in FILES:
        if file.name not in test_sets:
            print(f"{file.name}: left out ({'no test set' if file in unfetched else f'no model of {file.model}'})")
            continue
        # In full precision, as the suite's own scores are.
        predictor = Predictor.load(
            args.suite / file.model, batch_size=args.batch_size, engine="torch", device=args.device
        )
        engine = predictor.engine
        predictions[file.name] = answer(
            file, test_sets[file.name], predictor.logits, kind=engine.kind, labels=engine.labels
        )
        print(f"{file.name}: {file.rows:,} rows", flush=True)
    if not predictions:
        raise InputError(f"{args.suite}: nothing to submit; {SUITE} and the test sets have no task in common")
    write_submission(args.output, predictions)
    state = "checked" if len(predictions) == len(FILES) else "incomplete, so the server would refuse it"
    print(f"{args.output}: {len(predictions)} of {len(FILES)} files ({state})")


def _is_at_hand(file: SubmissionFile, data_dir: Path | None) -> bool:
    """Whether a test set is in the folder; the hub, without one, has all."""
    name = file.task.splits[file.split].file
    return data_dir is None or (data_dir / file.task.folder / name).is_file()


def _missing(
    untrained: list[SubmissionFile], unfetched: list[SubmissionFile], suite: Path, data_dir: Path | None
) -> str:
    """One line: what is missing, and how to get it."""
    parts = []
    if unfetched:
        tasks = " ".join(dict.fromkeys(file.task.name for file in unfetched))
        parts.append(
            f"{data_dir}: no test set for {', '.join(file.name for file in unfetched)} "
            f"(squeezebert glue download {tasks} --output {data_dir})"
        )
    if untrained:
        tasks = ", ".join(dict.fromkeys(file.model for file in untrained))
        parts.append(f"{suite}: no finished run of {tasks} (squeezebert glue run)")
    return "; ".join(parts) + "; or take --partial, for a zip without them that the server would not score"


def _add_check(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "check",
        help="test a zip against the benchmark's rules",
        description="Test any zip against the benchmark's rules: names, headers, rows, label words. Exit code 1 if it "
        "breaks one.",
    )
    parser.add_argument("zip", type=Path, metavar="ZIP", help="zip to test")


def _check(args: argparse.Namespace) -> int:
    """Say what is wrong with a zip, a line each."""
    from squeezebert.evaluation.submission import check_submission

    problems = check_submission(args.zip)
    for problem in problems:
        print(f"{args.zip}: {problem}")
    if not problems:
        print(f"{args.zip}: ready to be submitted")
    return 1 if problems else 0


_ACTIONS = {
    "download": _download,
    "run": _run,
    "search": _search,
    "scorecard": _scorecard,
    "submit": _submit,
    "check": _check,
}


class _Line:
    """Progress on standard error: renewed every half second on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._interval = 0.5 if self._terminal else 10.0
        self._shown = time.monotonic()
        self._width = 0

    def show(self, progress: Progress) -> None:
        """Show how far a transfer is, if it is time to."""
        if time.monotonic() - self._shown < self._interval:
            return
        self._shown = time.monotonic()
        text = (
            f"{progress.file}: {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB, "
            f"{progress.bytes_per_second / 1e6:.2f} MB/s, about {duration(progress.seconds_left)} left"
        )
        if self._terminal:
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._width:
            print(f"\r{'':{self._width}}\r", end="", file=sys.stderr, flush=True)
            self._width = 0
