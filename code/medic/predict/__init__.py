"""A model over the images of a store: the same for a checkpoint and for a bundle, from the original bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each, usable_cores
from medic.data.stores import Store
from medic.errors import ImageError, MedicError
from medic.task import Prediction, Task

FLIPS = {"horizontal": 2, "vertical": 1}
"""Flips by name, each with the axis of pixels (N, S, S, 3) that it reverses: the columns, the rows."""


class Model(Protocol):
    """What a checkpoint (``modeling.classifier``) and a bundle (``deployment.bundle.predictor``) both are."""

    task: Task
    preprocessing: Preprocessing

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        """Classify prepared pixels, uint8 (N, S, S, 3) RGB."""


@dataclass(frozen=True)
class MeanOverFlips:
    """A model whose answer is the mean over an image and its flips: test-time augmentation.

    Each flip costs as much as the image itself. Name only flips that leave the label as it is and that the network has
    met in training: an upside-down radiograph is neither.

    Attributes:
        model: a checkpoint or a bundle.
        flips: names in ``FLIPS``.

    Raises:
        MedicError: there is no flip, or one of them is unknown.
    """

    model: Model
    flips: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.flips or set(self.flips) - set(FLIPS):
            raise MedicError(f"there is no test-time augmentation {self.flips}; name one or more of {', '.join(FLIPS)}")

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.model.task

    @property
    def preprocessing(self) -> Preprocessing:
        """How the bytes of an image become pixels."""
        return self.model.preprocessing

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        """Return the mean of probabilities and grades, (N, S, S, 3) to N rows; the rest is as of the image itself."""
        views = [images, *(np.ascontiguousarray(np.flip(images, FLIPS[name])) for name in self.flips)]
        said = [self.model.predict_pixels(view) for view in views]
        mean = average(said)
        return replace(said[0], probabilities=mean.probabilities, grade=mean.grade)


def average(predictions: Sequence[Prediction]) -> Prediction:
    """Return the mean of probabilities, and of grades where there are any, without an operating point.

    The mean of probabilities makes fewer errors than its members do on average, the more the less alike their errors
    are (Dietterich, Ensemble methods in machine learning, MCS 2000, LNCS 1857, p. 1).

    Raises:
        MedicError: there is none, or they differ in task or number of images.
    """
    if not predictions:
        raise MedicError("there is nothing to average; give the predictions of one model or more")
    first = predictions[0]
    if any(other.task != first.task or len(other) != len(first) for other in predictions):
        raise MedicError("only predictions of one task for the same images can be averaged; evaluate on one split")
    mean = partial(np.mean, axis=0, dtype=np.float64)
    grade = None if first.grade is None else mean([one.grade for one in predictions]).astype(np.float32)
    return Prediction(first.task, mean([one.probabilities for one in predictions]).astype(np.float32), grade)


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What came of a list of images.

    Attributes:
        prediction: for the images that could be read; None where none could.
        names: theirs, in the prediction's order.
        failed: the others: ``image``, ``reason``, ``detail``; the index is each one's place among all images.
    """

    prediction: Prediction | None
    names: list[str]
    failed: pd.DataFrame

    def __len__(self) -> int:
        return len(self.names) + len(self.failed)

    def to_frame(self) -> pd.DataFrame:
        """Return one row an image, in the order asked; failed ones have no prediction and the reason in ``error``.

        The columns before it are those of ``Prediction.to_frame``, which says what ``p_none`` is and is not.
        """
        said = self.prediction.to_frame(self.names) if self.names else pd.DataFrame(columns=["image"], dtype=object)
        table = said.assign(error="")
        if self.failed.empty:
            return table
        codes = {name: "Int64" for name, kind in table.dtypes.items() if pd.api.types.is_integer_dtype(kind)}
        read = np.setdiff1d(np.arange(len(self)), self.failed.index)
        table = table.astype(codes).set_axis(read).reindex(range(len(self)))
        table.loc[self.failed.index, "image"] = self.failed["image"]
        table.loc[self.failed.index, "error"] = self.failed["reason"] + ": " + self.failed["detail"]
        return table


def predict(model: Model, store: Store, names: Sequence[str], batch_size: int = 32) -> BatchResult:
    """Classify images by name: bytes, decode, crop, scale, network, decoding.

    All predictions are held in memory; ``medic.predict.batch.predict_to`` writes them to a file as they come.

    Args:
        model: a checkpoint or a bundle, or ``MeanOverFlips`` of one.
        store: where the images are.
        names: their names in the store.
        batch_size: images a step. A batch is made of the same names whatever can be read of it, so that its
            predictions, to the last bit, depend on no other batch.

    Returns:
        Predictions, and what could not be read.

    Raises:
        MedicError: not one image could be read.
    """
    names = list(names)
    batches = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
    parts = list(answers(model, store, batches))
    starts = np.cumsum([0, *map(len, batches)])
    failed = [part.failed.set_axis(part.failed.index + start) for start, part in zip(starts, parts, strict=False)]
    table = pd.concat([_failures({}), *failed])
    if len(table) == len(names):
        raise nothing_read(store, names, *table["detail"])
    read = [part for part in parts if part.names]
    known = [name for part in read for name in part.names]
    return BatchResult(Prediction.joined([part.prediction for part in read]), known, table)


def answers(
    model: Model, store: Store, batches: Iterable[list[str]], at_once: int = 1, scheduler: str | None = None
) -> Iterator[BatchResult]:
    """Predict lists of names in order, with a progress bar; the arguments are those of ``batch.predict_to``."""
    if scheduler:
        yield from each(partial(_answer, model, store), batches, title="predicting", unit="batch", scheduler=scheduler)
        return
    with ThreadPoolExecutor(at_once) as network:  # while so many go through the network, a core each decodes
        work = partial(_answer, model, store, run=lambda pixels: network.submit(model.predict_pixels, pixels).result())
        yield from each(work, batches, title="predicting", unit="batch", threads=usable_cores() + at_once)


def _answer(model: Model, store: Store, names: list[str], run: Callable | None = None) -> BatchResult:
    pixels, read, failed = read_pixels(model.preprocessing, store, names)
    return BatchResult((run or model.predict_pixels)(np.stack(pixels)) if read else None, read, failed)


def read_pixels(
    preprocessing: Preprocessing, store: Store, names: Sequence[str]
) -> tuple[list[np.ndarray], list[str], pd.DataFrame]:
    """Return what a model gets of named images, uint8 (S, S, 3) each; their names; and ``BatchResult.failed``."""
    pixels, read, failed = [], [], {}
    for place, name in enumerate(names):
        try:
            if name not in store:
                raise ImageError(f"not in {store.location.name}", "unreadable")
            pixels.append(preprocessing.pixels(store.read(name)))
            read.append(name)
        except ImageError as error:
            failed[place] = (name, error.reason, str(error))
    return pixels, read, _failures(failed)


def _failures(failed: dict[int, tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(failed.values(), index=list(failed), columns=["image", "reason", "detail"])


def nothing_read(store: Store, names: Sequence[str], *why: str) -> MedicError:
    """Return the refusal of a prediction without one readable image, which names the first of them."""
    first = f"; the first: {names[0]}, {why[0]}" if names else ""
    return MedicError(f"not one of {len(names)} images in {store.location} could be read{first}")
