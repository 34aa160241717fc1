"""A model over the images of a store: the same for a checkpoint and for a bundle, from the original bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np
import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
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
        first, mean = said[0], average(said)
        return replace(first, probabilities=mean.probabilities, grade=mean.grade)


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
    probabilities = np.mean([one.probabilities for one in predictions], axis=0, dtype=np.float64).astype(np.float32)
    grade = None
    if first.grade is not None:
        grade = np.mean([one.grade for one in predictions], axis=0, dtype=np.float64).astype(np.float32)
    return Prediction(first.task, probabilities, grade)


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What came of a list of images.

    Attributes:
        prediction: for the images that could be read.
        names: theirs, in the prediction's order.
        failed: the others: ``image``, ``reason``, ``detail``; the index is each one's place among all images.
    """

    prediction: Prediction
    names: list[str]
    failed: pd.DataFrame

    def __len__(self) -> int:
        return len(self.names) + len(self.failed)

    def to_frame(self) -> pd.DataFrame:
        """Return one row an image, in the order asked; failed ones have no prediction and the reason in ``error``.

        The columns before it are those of ``Prediction.to_frame``, which says what ``p_none`` is and is not.
        """
        table = self.prediction.to_frame(self.names).assign(error="")
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
        batch_size: images a step; only a few steps' images are held in memory.

    Returns:
        Predictions, and what could not be read.

    Raises:
        MedicError: not one image could be read.
    """
    parts = list(answers(model, store, names, batch_size))
    failed = [(name, *why) for part in parts for name, *why in part.failed.itertuples(index=False)]
    refuse_empty(store, len(names), failed)
    asked = {name: place for place, name in enumerate(names)}
    return BatchResult(
        Prediction.joined([part.prediction for part in parts if part.names]),
        [name for part in parts for name in part.names],
        unread(failed, [asked[name] for name, *_ in failed]),
    )


def unread(failed: Sequence[tuple[str, str, str]], places: Sequence[int]) -> pd.DataFrame:
    """Return images that could not be read as ``BatchResult.failed`` has them."""
    return pd.DataFrame(failed, index=list(places), columns=["image", "reason", "detail"])


def refuse_empty(store: Store, count: int, failed: Sequence[tuple[str, str, str]]) -> None:
    """Refuse a prediction without one readable image.

    Raises:
        MedicError: as many images failed as were asked for; the message names the first.
    """
    if len(failed) == count:
        shown = f"; the first: {failed[0][0]}, {failed[0][2]}" if failed else ""
        raise MedicError(f"not one of {count} images in {store.location} could be read{shown}")


def answers(
    model: Model, store: Store, names: Sequence[str], batch_size: int, at_once: int = 1
) -> Iterator[BatchResult]:
    """Predict images batch by batch, in their order, with a progress bar and flat memory.

    Decoding and network work at the same time. A batch is made of the same names whatever can be read of it, so that
    its predictions, to the last bit, depend on no other batch.

    Args:
        model: a checkpoint or a bundle, or ``MeanOverFlips`` of one.
        store: where the images are.
        names: their names in the store.
        batch_size: names a batch; of ``at_once + 1`` batches the pixels are held in memory.
        at_once: batches that go through the network at a time; more than one suits a model whose calls take a thread
            each (``bundle.predictor(threads=1)``).
    """

    def pixels(name: str) -> np.ndarray | tuple[str, str]:
        if name not in store:
            return "unreadable", f"not in {store.location.name}"
        try:
            return model.preprocessing.pixels(store.read(name))
        except ImageError as error:
            return error.reason, str(error)

    def answer(batch: list[tuple[str, np.ndarray | tuple[str, str]]]) -> BatchResult:
        read = {name: result for name, result in batch if isinstance(result, np.ndarray)}
        failed = {place: (name, *result) for place, (name, result) in enumerate(batch) if name not in read}
        said = model.predict_pixels(np.stack(list(read.values()))) if read else nothing(model.task)
        return BatchResult(said, list(read), unread(list(failed.values()), list(failed)))

    with contextlib.ExitStack() as stack:
        images = stack.enter_context(contextlib.closing(each(pixels, names, title="predicting")))
        pool = ThreadPoolExecutor(at_once)
        stack.callback(pool.shutdown, cancel_futures=True)
        results, waiting = zip(names, images, strict=True), []
        while batch := list(islice(results, batch_size)):
            waiting.append(pool.submit(answer, batch))
            if len(waiting) > at_once:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def nothing(task: Task) -> Prediction:
    """Return the prediction of no image at all."""
    grade = np.zeros(0, np.float32) if task.kind == "ordinal" else None
    return Prediction(task, np.zeros((0, len(task.classes)), np.float32), grade)
