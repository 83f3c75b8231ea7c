"""Which engine runs a model: the user's choice, or the fastest one that is here."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.runtime import models
from squeezebert.runtime.engines import native

if TYPE_CHECKING:
    from squeezebert.runtime.engines import Engine
    from squeezebert.runtime.engines.native import NativeEngine
    from squeezebert.runtime.engines.reference import ReferenceEngine
    from squeezebert.runtime.fill_mask import MaskedModel

EngineName = Literal["auto", "native", "torch"]
ENGINES: tuple[EngineName, ...] = ("auto", "native", "torch")
"""``native``: this package's int8 engine, on the CPU. ``torch``: fp32, CPU or GPU. ``auto``: native on a CPU, torch on
a GPU; where the installation lacks the native engine, torch or else NumPy, with a line that says so."""

_Found = Literal["native", "torch", "numpy", "exported"]
"""What runs the model; "exported" is the runtime that it was exported for."""


def load_classifier(
    source: str | Path, *, engine: EngineName = "auto", device: str = "auto", threads: int | None = None
) -> Engine:
    """Load a model that classifies texts.

    Args:
        source: Folder of an exported model or of a checkpoint, a hub id, or the name of a model that ships with the
            package (:mod:`squeezebert.runtime.models`).
        engine: One of :data:`ENGINES`.
        device: "cpu", "cuda" and so on; "auto": a GPU where there is one and torch is installed.
        threads: Cores to use; None: those that this process may use.

    Raises:
        InputError: The model cannot be read, or the engine cannot run it here.
        MissingExtraError: The engine needs a package that is not installed.
    """
    source = models.find(source)
    found = _choose(source, engine, device)
    if found == "torch":
        from squeezebert.runtime.engines.torch import TorchEngine

        loaded: Engine = TorchEngine.load(source, device=device, threads=threads)
    elif artifact.is_artifact(source):
        manifest = artifact.read_manifest(source)
        if manifest.head != "sequence_classification":
            raise InputError(f"{source}: has the head {manifest.head}, which does not classify texts")
        if found != "exported":
            loaded = _quantized(found).load(source, threads=threads)
        else:
            from squeezebert.runtime.engines.exported import ExportedEngine

            loaded = ExportedEngine.load(source, threads=threads)
    else:
        loaded = _quantized(found).from_checkpoint(source, "sequence_classification", threads=threads)
    _tell(found, engine, device)
    return loaded


def load_masked_lm(source: str | Path, *, engine: EngineName = "auto") -> MaskedModel:
    """Load a masked language model.

    Args:
        source: Folder of an exported model or of a pretraining run, or a hub id.
        engine: One of :data:`ENGINES`.

    Raises:
        InputError: The model cannot be read, or has no such head.
        MissingExtraError: The engine needs a package that is not installed.
    """
    found = _choose(source, engine, "cpu")
    if found == "torch":
        from squeezebert.runtime.pretrained import TorchMaskedModel

        loaded: MaskedModel = TorchMaskedModel.load(source)
    elif artifact.is_artifact(source):
        manifest = artifact.read_manifest(source)
        if found == "exported":
            raise InputError(f"{source}: exported as {manifest.format}; gaps are filled by squeezebert export native")
        if manifest.head != "masked_lm":
            raise InputError(
                f"{source}: has no masked language model's head, but {manifest.head}; export a pretraining run"
            )
        loaded = _quantized(found).load(source)
    else:
        loaded = _quantized(found).from_checkpoint(source, "masked_lm")
    _tell(found, engine, "cpu")
    return loaded


def _quantized(found: _Found) -> type[NativeEngine | ReferenceEngine]:
    if found == "native":
        return native.NativeEngine

    from squeezebert.runtime.engines.reference import ReferenceEngine

    return ReferenceEngine


def _choose(source: str | Path, engine: EngineName, device: str) -> _Found:
    """Choose by what was asked for and by what is installed.

    Raises:
        InputError: What was asked for cannot be had.
    """
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINES)}")
    on_cpu = device in ("auto", "cpu")
    if artifact.is_artifact(source):
        if engine == "torch":
            raise InputError(f"{source}: an exported model, which torch does not run; give its checkpoint")
        if not on_cpu:
            raise InputError(f"device {device!r}: an exported model runs on the CPU; give its checkpoint for others")
        format = artifact.read_manifest(source).format
        if format != "native":
            if engine == "native":
                raise InputError(f"{source}: exported as {format}, which native does not run; leave out --engine")
            return "exported"
        return "numpy" if engine == "auto" and native.library_path() is None else "native"
    if engine == "native":
        if not on_cpu:
            raise InputError(f"device {device!r}: the native engine runs on the CPU; choose --engine torch for others")
        return "native"
    if engine == "torch" or not on_cpu:
        return "torch"
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch and device == "auto" and _has_gpu():
        return "torch"
    return "native" if native.library_path() else "torch" if has_torch else "numpy"


def _has_gpu() -> bool:
    """Whether there is a GPU of NVIDIA's that this process may use; asked of the driver, for torch takes a second."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _tell(found: _Found, engine: EngineName, device: str) -> None:
    """Say so where a slower engine runs for want of the native one."""
    if engine != "auto" or found not in ("torch", "numpy") or native.library_path() or device not in ("auto", "cpu"):
        return
    if found == "torch" and device == "auto" and _has_gpu():
        return
    import logging

    runs = "torch runs the model, in fp32 and" if found == "torch" else "NumPy runs the model,"
    logging.getLogger("squeezebert").warning(
        "%s slowly: this installation has no native engine, for want of a C++17 compiler; with one, install again", runs
    )
