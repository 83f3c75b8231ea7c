"""``squeezebert classify``: texts given as arguments, on standard input or in a file -> labels."""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert.cli.predicting import add_predictor_arguments, load_predictor
from squeezebert.errors import InputError, require
from squeezebert.runtime import models

if TYPE_CHECKING:
    from squeezebert.runtime import Prediction
    from squeezebert.runtime.output import PredictionFile, Row
    from squeezebert.runtime.predictor import Predictor

_LINES = (".txt", ".txt.gz", ".txt.zst")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="a text to classify; none: one a line on standard input"
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="file of texts: .csv, .tsv, .jsonl, .parquet, or .txt with one a line",
    )
    parser.add_argument("--text-column", metavar="NAME", default="text", help="column of the text in --input (text)")
    parser.add_argument("--pair-column", metavar="NAME", help="column of the second text, for a model of pairs")
    parser.add_argument("--pair", metavar="TEXT", help="the second text to a single TEXT, for a model of pairs")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file for the predictions, in the order of the input: .jsonl, .csv, .tsv",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted --output")
    parser.add_argument("--json", action="store_true", help="print JSON lines, with the score of every label")
    add_predictor_arguments(parser, engine="auto", model=models.DEFAULT)


def run(args: argparse.Namespace) -> int:
    """Classify; the exit status is 130 if interrupted with a partial file kept."""
    rows = _rows(args)
    if args.output is not None:
        # Checked before the model is loaded, which takes seconds.
        from squeezebert.runtime.output import check_format

        check_format(args.output)
        if args.input is not None and _is_same(args.input, args.output):
            raise InputError(f"{args.output}: this is the input, which would be lost; choose another --output")
    elif args.resume:
        raise InputError("--resume goes on with a file, so it needs --output")
    # So are the first row, and with it the file's columns.
    first = list(itertools.islice(rows, 1))
    if not first and args.input is not None:
        raise InputError(f"{args.input}: there are no rows")
    predictor = load_predictor(args)
    _check_pairs(args, predictor)
    rows = itertools.chain(first, rows)
    if args.output is not None:
        return _write(args, predictor, rows)
    _print(args, predictor, rows)
    return 0


def _is_same(first: Path, second: Path) -> bool:
    """Whether both are one file, be it through links."""
    return first.exists() and second.exists() and first.samefile(second)


def _check_pairs(args: argparse.Namespace, predictor: Predictor) -> None:
    """Refuse single texts for a model of pairs, and the reverse, in terms of the flags."""
    given = args.pair_column is not None or args.pair is not None
    if predictor.engine.pair is True and not given:
        remedy = "give the second text with --pair" if args.texts else "give a table, and its column with --pair-column"
        raise InputError(f"{args.model}: a model of pairs of texts; {remedy}")
    if predictor.engine.pair is False and given:
        flag = "--pair" if args.pair_column is None else "--pair-column"
        raise InputError(f"{args.model}: a model of single texts; leave out {flag}")


def _rows(args: argparse.Namespace) -> Iterator[Row]:
    """The texts, from wherever they are."""
    if args.pair is not None:
        if len(args.texts) != 1 or args.input is not None or args.pair_column is not None:
            raise InputError("--pair is the second text to one TEXT; for more pairs use --input and --pair-column")
        return iter([(args.texts[0], args.pair)])
    if args.input is None:
        if args.pair_column is not None:
            raise InputError("--pair-column names a column of a file, so it needs --input")
        return ((text, None) for text in args.texts or _read_standard_input())
    if args.texts:
        raise InputError("texts are given both as arguments and by --input; give one of the two")
    if args.input.name.lower().endswith(_LINES):
        if args.pair_column is not None:
            raise InputError(f"{args.input}: a file of lines has no columns; use .tsv for pairs of texts")
        from squeezebert.lines import numbered_lines

        return ((line, None) for _, line in numbered_lines(args.input))
    from squeezebert.data.tables import Columns, iter_rows

    columns = Columns(text=args.text_column, pair=args.pair_column)
    return ((row.text, row.pair) for row in iter_rows(args.input, columns))


def _read_standard_input() -> Iterator[str]:
    if sys.stdin is None:  # closed by who started the program
        raise InputError("there is no standard input to read texts from; give them as arguments or by --input")
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise InputError(
                f"standard input:{number}: byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not "
                "UTF-8; convert it, for example with iconv"
            ) from None


def _print(args: argparse.Namespace, predictor: Predictor, rows: Iterator[Row]) -> None:
    """Show the predictions as they come: JSON, or a line of label, score and text."""
    from squeezebert.runtime.output import to_json

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the terminal is not one of UTF-8, a text may hold what it cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    rows, texts = itertools.tee(rows)
    typing = args.input is None and not args.texts and sys.stdin.isatty()
    predictions: Iterable[Prediction] = predictor.stream(rows)
    if typing:
        # Each line is answered at once.
        predictions = (prediction for row in rows for prediction in predictor.stream([row]))
    width = max((len(label) for label in predictor.engine.labels), default=0)
    for number, (prediction, row) in enumerate(zip(predictions, texts, strict=False), start=1):
        print(to_json(number, prediction) if args.json else _line(prediction, row, width))
        if typing or number % predictor.window == 0:
            sys.stdout.flush()
    sys.stdout.flush()


def _line(prediction: Prediction, row: Row, width: int) -> str:
    """``positive  0.987  the text``, or for a regression the value and the text, on one line."""
    text = " | ".join(" ".join(part.split()) for part in row if part is not None)
    if isinstance(prediction.label, float):
        return f"{prediction.label:9.4f}  {text}"
    label = prediction.label if isinstance(prediction.label, str) else ", ".join(prediction.label) or "-"
    return f"{label:<{width}}  {prediction.score:.3f}  {text}"


def _write(args: argparse.Namespace, predictor: Predictor, rows: Iterator[Row]) -> int:
    """Stream the predictions into a file."""
    from squeezebert.cli.progress import Progress
    from squeezebert.runtime.output import PredictionFile

    labels = () if predictor.engine.kind == "regression" else predictor.engine.labels
    output = PredictionFile(
        args.output, labels=labels, window=predictor.window, settings=_settings(args), resume=args.resume
    )
    progress = Progress(_estimate_rows(args.input), output.rows)
    try:
        with output:
            output.skip(rows, str(args.input or "the texts"))
            rows, texts = itertools.tee(rows)
            try:
                for prediction, row in zip(predictor.stream(rows), texts, strict=False):
                    output.write(row, prediction)
                    progress.step()
            except InputError as error:
                raise InputError(f"{error}{_kept(output)}") from error
            finally:
                progress.close()
    except KeyboardInterrupt:
        print(f"squeezebert: interrupted{_kept(output)}", file=sys.stderr)
        return 130
    return 0


def _kept(output: PredictionFile) -> str:
    """What there is of an output that broke off. Rows of a window that is not whole are computed again."""
    if not output.rows:
        return ""
    done = f"; the first {output.rows} rows are in {output.partial}"
    if not output.safe_rows:
        return f"{done}, and --resume makes them anew"
    return f"{done}, and --resume goes on after row {output.safe_rows}"


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """All that shapes the predictions; the input may change behind the break, where a bad row is mended."""
    model = Path(models.find(args.model))
    files = sorted(file for file in model.iterdir() if file.is_file()) if model.is_dir() else []
    settings = {
        "--model": str(model.resolve()) if files else args.model,
        "--input": str(args.input.resolve()) if args.input else None,
        "--text-column": args.text_column,
        "--pair-column": args.pair_column,
        "--batch-size": args.batch_size,
        "--max-length": args.max_length,
        "--engine": args.engine,
        "--device": args.device,
        "--threads": args.threads,
    }
    return settings | {
        f"size and time of {file.name}": [file.stat().st_size, file.stat().st_mtime_ns] for file in files
    }


def _estimate_rows(path: Path | None) -> int | None:
    """Rows of a file, from its size and the length of its first lines; None where that would not tell."""
    if path is None or path.suffix.lower() in (".gz", ".zst"):
        return None
    if path.suffix.lower() == ".parquet":
        count: int = require("pyarrow.parquet", "tables").ParquetFile(path).metadata.num_rows
        return count
    with path.open("rb") as file:
        sample = file.read(1 << 20)
    return round(path.stat().st_size * sample.count(b"\n") / max(len(sample), 1))
