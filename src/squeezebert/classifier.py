"""The front door: fit, predict, predict_proba, save, load."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from squeezebert.errors import InputError, require
from squeezebert.runtime.predictor import Predictor, as_rows, probabilities

if TYPE_CHECKING:
    from typing_extensions import Self

    from squeezebert.data.examples import Example
    from squeezebert.data.tasks import Kind, Task
    from squeezebert.runtime import Prediction
    from squeezebert.runtime.engines.choice import EngineName

Dev = tuple[Sequence[str], Sequence[Any]] | tuple[Sequence[str], Sequence[Any], Sequence[str]]
"""Labelled data that choose the best checkpoint: (texts, labels), or (texts, labels, second texts)."""


class Classifier:
    """A text classifier: one label a text, several, or a number.

    >>> classifier = Classifier("squeezebert/squeezebert-uncased").fit(texts, labels)  # doctest: +SKIP
    >>> classifier.predict("a gripping, beautifully shot film").label  # doctest: +SKIP
    'positive'

    Args:
        model: Where :meth:`fit` starts: a folder, a hub id, the name of a model in the package, or a size name (random
            weights). A model that is finetuned already comes from :meth:`load`.
    """

    def __init__(self, model: str | Path = "small") -> None:
        self._model = str(model)
        self._predictor: Predictor | None = None

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        batch_size: int = 32,
        max_length: int | None = None,
        engine: EngineName = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> Self:
        """Load a finetuned model.

        Args:
            source: Folder of a finetuned or an exported model, or a hub id.
            batch_size: Texts run at a time.
            max_length: Tokens kept of each text or pair; None: as many as in finetuning.
            engine: "native" runs in int8 on the CPU, without torch; "torch" in fp32; "auto" takes the fastest one here,
                which is native on a CPU and torch on a GPU.
            device: "cpu", "cuda" and so on; "auto": a GPU where there is one.
            threads: Cores to use; None: those that this process may use.

        Raises:
            InputError: The model cannot be read, is none that classifies texts, or is not for this engine or device.
            MissingExtraError: The engine needs a package that is not installed.
        """
        classifier = cls(source)
        classifier._predictor = Predictor.load(
            source, batch_size=batch_size, max_length=max_length, engine=engine, device=device, threads=threads
        )
        return classifier

    def fit(
        self,
        texts: Sequence[str],
        labels: Sequence[Any],
        *,
        pairs: Sequence[str] | None = None,
        dev: Dev | None = None,
        output: str | Path | None = None,
        **settings: Any,
    ) -> Self:
        """Finetune on labelled texts.

        Args:
            texts: The texts.
            labels: Of each a name (string or integer); with ``multi_label=True`` a list of names; with
                ``regression=True`` a number. Names are kept as strings, so the label 0 comes back as "0".
            pairs: The second text of each, to learn from pairs.
            dev: Data that choose the best checkpoint; None: a tenth of the texts is held out for it.
            output: Folder that keeps the run: model, log, curves, model card. None: only the model is kept, as long as
                this classifier lives.
            settings: Fields of :class:`squeezebert.training.settings.FinetuneSettings`: ``epochs``, ``batch_size``,
                ``learning_rate``, ``regression``, ``multi_label`` and so on; not those that name files and columns.

        Returns:
            This classifier, finetuned.

        Raises:
            InputError: Texts, labels or settings are wrong; the message gives the position or the name.
            MissingExtraError: The packages for training are not installed.
        """
        require("torch", "train")
        require("accelerate", "train")
        from squeezebert.training.finetune import finetune
        from squeezebert.training.labelled import hold_out, with_dev
        from squeezebert.training.settings import OF_DATA, FinetuneSettings

        for name in settings:
            if name in OF_DATA:
                raise InputError(f"settings: {name} is for data in files, and fit is given texts; leave it out")
        with tempfile.TemporaryDirectory(prefix="squeezebert-") as temporary:
            folder = Path(output) if output is not None else Path(temporary) / "run"
            try:
                chosen = FinetuneSettings(model=self._model, output=folder, **settings)
            except TypeError as error:  # a setting that there is none of
                raise InputError(f"settings: {str(error).rpartition('() ')[2]}") from None
            kind: Kind = "regression" if chosen.regression else "multi_label" if chosen.multi_label else "single_label"
            task, train = _examples(None, kind, texts, labels, pairs, "")
            if dev is None:
                data = hold_out(task, train, "texts")
            else:
                if not isinstance(dev, (tuple, list)) or len(dev) not in (2, 3):
                    raise InputError("dev must be (texts, labels), or (texts, labels, second texts)")
                _, held = _examples(task, kind, dev[0], dev[1], dev[2] if len(dev) > 2 else None, "dev ")
                data = with_dev(task, train, held)
            if finetune(chosen, data) is not None:
                self._predictor = Predictor.load(self._keep(folder, output is None), device=chosen.device)
        return self

    def _keep(self, folder: Path, temporary: bool) -> Path:
        """Where the model stays: in ``folder``, or if that goes away, in one that lives as long as this classifier."""
        if not temporary:
            return folder
        from squeezebert import checkpoint

        kept = Path(tempfile.mkdtemp(prefix="squeezebert-"))
        weakref.finalize(self, shutil.rmtree, kept, ignore_errors=True)
        for name in (checkpoint.CONFIG, checkpoint.WEIGHTS[0], *checkpoint.VOCABULARIES, "tokenizer_config.json"):
            shutil.move(folder / name, kept / name)
        return kept

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of :meth:`predict_proba`'s columns; empty for regression."""
        engine = self._fitted.engine
        return () if engine.kind == "regression" else engine.labels

    @overload
    def predict(self, texts: str, pairs: str | None = None) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]: ...

    def predict(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> Prediction | list[Prediction]:
        """Label texts, or pairs of texts.

        Args:
            texts: One text, or many.
            pairs: The second text, or texts, for a model of pairs.

        Returns:
            One prediction for one text, else a list of them in the order of the texts. A label is a name, which is a
            string: "0" where :meth:`fit` was given the label 0. Of a regression it is a number.

        Raises:
            InputError: There is no model yet, or texts and pairs do not go together.
        """
        if isinstance(texts, str):
            return self._fitted.predict(*_lists(texts, pairs))[0]
        return self._fitted.predict(*_lists(texts, pairs))

    def predict_proba(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Probabilities of the labels; each on its own for a model of several labels a text.

        *Shape:* ``[n, K]``, columns as :attr:`labels`; one text gives one row.

        Raises:
            InputError: As :meth:`predict`; or the model is a regression, which has no probabilities.
        """
        predictor = self._fitted
        if predictor.engine.kind == "regression":
            raise InputError("a regression has values and no probabilities; use predict")
        logits = list(predictor.logits(as_rows(*_lists(texts, pairs))))
        if not logits:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        return probabilities(predictor.engine.kind, np.stack(logits)).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write model and tokenizer to a folder that :meth:`load` reads.

        Whichever engine runs it, that is the checkpoint in full precision, which ``transformers`` reads too; only a
        model that was loaded from an export is written as that.

        Raises:
            InputError: There is no model yet, what it was loaded from has changed since, or ``folder`` is a file.
            OSError: It cannot be written, or the disk is full.
        """
        self._fitted.engine.save(folder, self._fitted.tokenizer)

    @property
    def _fitted(self) -> Predictor:
        if self._predictor is None:
            raise InputError("this classifier has no finetuned model yet: call fit, or get one by Classifier.load")
        return self._predictor


def _lists(
    texts: str | Sequence[str], pairs: str | Sequence[str] | None
) -> tuple[Sequence[str], Sequence[str | None] | None]:
    """One text and many alike, as lists."""
    if isinstance(texts, str) or isinstance(pairs, str):
        if not isinstance(texts, str) or not isinstance(pairs, (str, type(None))):
            raise InputError("texts and pairs must both be one text, or both be lists")
        return [texts], None if pairs is None else [pairs]
    return list(texts), None if pairs is None else list(pairs)


def _examples(
    task: Task | None,
    kind: Kind,
    texts: Sequence[str],
    labels: Sequence[Any],
    pairs: Sequence[str] | None,
    what: str,
) -> tuple[Task, list[Example]]:
    """Labelled texts as examples of ``task``, which None leaves to be found from the labels."""
    from squeezebert.data.examples import Example
    from squeezebert.data.tables import derive_task, encode_label

    for name, values in (("texts", texts), ("labels", labels), ("second texts", pairs)):
        if isinstance(values, (str, bytes)):
            raise InputError(f"{what}{name} must be a list, not the one string {values!r:.40}")
    rows = as_rows(list(texts), None if pairs is None else list(pairs))
    # Arrays and data frames hold numbers of their own types.
    plain = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    if len(plain) != len(rows):
        raise InputError(f"{len(rows)} {what}texts, but {len(plain)} {what}labels: give one for each")
    if not rows:
        raise InputError(f"there are no {what}texts to learn from")
    places = [f"{what}labels[{i}]" for i in range(len(rows))]
    if task is None:
        task = derive_task(zip(plain, places, strict=True), name="texts", kind=kind, pair=pairs is not None)
    if task.pair != (pairs is not None):
        raise InputError("the texts and the dev texts must both have second texts, or neither")
    encoded = [encode_label(task, label, place) for label, place in zip(plain, places, strict=True)]
    return task, [Example(text, pair, label) for (text, pair), label in zip(rows, encoded, strict=True)]
