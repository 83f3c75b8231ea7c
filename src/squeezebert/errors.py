"""Errors that a user can mend. The command line prints them as one line and exits with 2."""

from __future__ import annotations

import importlib
from types import ModuleType


class InputError(ValueError):
    """Bad input: one line that names the file, the row or field, and the remedy."""


class DivergedError(InputError):
    """A training run whose loss is not finite or has risen too far."""


class MissingExtraError(ImportError):
    """A feature needs packages that only an optional extra installs."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra brings it.

    Args:
        module: Dotted name of the module to import.
        extra: Name of the optional extra that installs it.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name.split(".")[0]):
            raise
        package = module.split(".")[0]
        raise MissingExtraError(
            f"{package} is not installed; this needs it: pip install 'squeezebert[{extra}]'"
        ) from error
