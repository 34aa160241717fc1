"""A model over the images of a store: the same for a checkpoint and for a bundle, from the original bytes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
from medic.data.stores import Store
from medic.errors import ImageError, MedicError
from medic.task import Prediction, Task


class Model(Protocol):
    """What a checkpoint (``modeling.classifier``) and a bundle (``deployment.bundle.predictor``) both are."""

    task: Task
    preprocessing: Preprocessing

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        """Classify prepared pixels, uint8 (N, S, S, 3) RGB."""


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
        """One row an image, in the order asked; failed ones have empty predictions and the reason in ``error``.

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
        model: a checkpoint or a bundle.
        store: where the images are.
        names: their names in the store.
        batch_size: images a step; only a few steps' images are held in memory.

    Returns:
        Predictions, and what could not be read.

    Raises:
        MedicError: not one image could be read.
    """
    read: list[str] = []
    parts, failed, place = [], [], 0
    for part in answers(model, store, names, batch_size):
        if part.names:
            parts.append(part.prediction)
        read += part.names
        failed.append(part.failed.set_axis(part.failed.index + place))
        place += len(part)
    if not parts:
        row = failed[0].iloc[0] if failed else None
        raise none_read(store, len(names), row is not None and f"{row['image']}, {row['detail']}")
    return BatchResult(Prediction.joined(parts), read, pd.concat(failed))


def none_read(store: Store, count: int, first: str | bool) -> MedicError:
    """The error of a prediction without one readable image; ``first`` names one and says what is wrong with it."""
    shown = f"; the first: {first}" if first else ""
    return MedicError(f"not one of {count} images in {store.location} could be read{shown}")


def answers(
    model: Model,
    store: Store,
    names: Sequence[str],
    batch_size: int,
    at_once: int = 1,
    before: Callable[[str], object] | None = None,
) -> Iterator[BatchResult]:
    """Predict images batch by batch, in their order, with a progress bar and flat memory.

    Decoding and network work at the same time. A batch is made of the same names whatever can be read of it, so that
    its predictions, to the last bit, depend on no other batch.

    Args:
        model: a checkpoint or a bundle.
        store: where the images are.
        names: their names in the store.
        batch_size: names a batch; of ``at_once + 1`` batches the pixels are held in memory.
        at_once: batches that go through the network at a time; more than one suits a model whose calls take a thread
            each (``bundle.predictor(threads=1)``).
        before: called with each name, in some thread, before the image is read.
    """

    def one(name: str) -> np.ndarray | tuple[str, str]:
        if before is not None:
            before(name)
        if name not in store:
            return "unreadable", f"not in {store.location.name}"
        try:
            return model.preprocessing.pixels(store.read(name))
        except ImageError as error:
            return error.reason, str(error)

    with contextlib.ExitStack() as stack:
        images = stack.enter_context(contextlib.closing(each(one, names, title="predicting")))
        pool = ThreadPoolExecutor(at_once)
        stack.callback(pool.shutdown, cancel_futures=True)
        results, waiting = zip(names, images, strict=True), deque[Future[BatchResult]]()
        while part := list(islice(results, batch_size)):
            waiting.append(pool.submit(_answer, model, part))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _answer(model: Model, results: list[tuple[str, np.ndarray | tuple[str, str]]]) -> BatchResult:
    """The predictions of a batch, from its names and what came of decoding them."""
    read = {name: result for name, result in results if isinstance(result, np.ndarray)}
    failed = {place: (name, *result) for place, (name, result) in enumerate(results) if name not in read}
    return BatchResult(
        model.predict_pixels(np.stack(list(read.values()))) if read else nothing(model.task),
        list(read),
        pd.DataFrame(failed.values(), index=list(failed), columns=["image", "reason", "detail"]),
    )


def nothing(task: Task) -> Prediction:
    """The prediction of no image at all."""
    grade = np.zeros(0, np.float32) if task.kind == "ordinal" else None
    return Prediction(task, np.zeros((0, len(task.classes)), np.float32), grade)
