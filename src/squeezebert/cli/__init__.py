"""The command line: one short file per verb; each parses its flags and calls the library."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from squeezebert import __version__
from squeezebert.errors import InputError, MissingExtraError

# verb -> (module under squeezebert.cli, one line of help), in the order of the work's flow.
# A verb's module is imported only when the verb is asked for, so `classify` never pays for `finetune`.
# Each module offers add_arguments(parser) and run(args) -> exit status or None.
VERBS: dict[str, tuple[str, str]] = {
    "classify": ("classify", "label texts given as arguments, on standard input or in a file"),
    "finetune": ("finetune", "train a classifier on a GLUE task or on your own table"),
    "distill": ("distill", "train a classifier on a teacher's opinion, as finetune --teacher does"),
    "evaluate": ("evaluate", "score a finetuned model on labelled data"),
    "pretrain": ("pretrain", "pretrain a model on a corpus, or score a pretrained one"),
    "fill-mask": ("fill_mask", "guess the masked words of a text"),
    "sentence-order": ("sentence_order", "tell whether two passages stand in their order"),
    "export": ("export", "write a model in the form that another engine runs"),
    "demo": ("demo", "open a page in the browser that classifies what you type, on this machine"),
    "bench": ("bench", "measure speed and memory beside other models and runtimes"),
    "model": ("model", "describe a model, or convert it between checkpoint layouts"),
    "glue": ("glue", "fetch the GLUE benchmark, finetune on all of it, and write what its server scores"),
    "vocab": ("vocab", "learn a WordPiece vocabulary from text files"),
    "corpus": ("corpus", "turn raw text into a pretraining corpus, and look into one"),
}


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; only ``verb``'s own flags are loaded (all verbs' when it is None)."""
    parser = argparse.ArgumentParser(
        prog="squeezebert", description="SqueezeBERT: train, score and run a small, fast text classifier."
    )
    parser.add_argument("--version", action="version", version=f"squeezebert {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, (module, summary) in VERBS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if verb is None or name == verb:
            loaded = importlib.import_module(f"squeezebert.cli.{module}")
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    return parser


def _describe(error: OSError) -> str:
    """One line for a failure of the file system: which file, what happened, what to do."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "; free some space and run the command again",
        errno.EACCES: "; choose a folder that you may write to, or change its permissions",
        errno.EROFS: "; choose a folder on a disk that can be written",
        errno.ENOENT: "; check the path",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}{remedy}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 done, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    args = build_parser(verb if verb in VERBS else "").parse_args(arguments)
    try:
        return int(args.run(args) or 0)
    except (InputError, MissingExtraError) as error:
        message = " ".join(str(error).split())
    except BrokenPipeError:
        # The reader went away (`squeezebert classify ... | head`): end quietly, as other Unix tools do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        message = _describe(error)
    except MemoryError:
        message = "not enough memory; end other programs, or take a smaller model or --batch-size"
    except KeyboardInterrupt:
        print("squeezebert: interrupted", file=sys.stderr)
        return 130
    print(f"squeezebert: {message}", file=sys.stderr)
    return 2
