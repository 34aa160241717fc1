"""A model over the images of a store: the same for a checkpoint and for a bundle, from the original bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from medic.data.parallel import each
from medic.data.preprocess import Preprocessing
from medic.data.stores import Store
from medic.errors import ImageError, MedicError
from medic.task import Prediction, Task


class Model(Protocol):
    """What a checkpoint (``medic.modeling.classifier``) and a bundle (``medic.deployment.predict``) both are."""

    task: Task
    preprocessing: Preprocessing

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        """Classify prepared pixels, uint8 (N, S, S, 3) RGB."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What came of a list of images.

    Attributes:
        prediction: for the images that could be read.
        names: theirs, in the prediction's order.
        failed: the others: ``image``, ``reason``, ``detail``.
    """

    prediction: Prediction
    names: list[str]
    failed: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row an image, the failed ones last, with empty predictions and the reason in ``error``.

        The columns before it are those of ``Prediction.to_frame``, which says what ``p_none`` is and is not.
        """
        table = self.prediction.to_frame(self.names).assign(error="")
        failed = self.failed.assign(error=self.failed["reason"] + ": " + self.failed["detail"])[["image", "error"]]
        if failed.empty:
            return table
        codes = {name: "Int64" for name, kind in table.dtypes.items() if pd.api.types.is_integer_dtype(kind)}
        return pd.concat([table.astype(codes), failed], ignore_index=True)


def predict(model: Model, store: Store, names: Sequence[str], batch_size: int = 32) -> Predicted:
    """Classify images by name: bytes, decode, crop, scale, network, decoding.

    Args:
        model: a checkpoint or a bundle.
        store: where the images are.
        names: their names in the store.
        batch_size: images a step; only so many are held in memory.

    Returns:
        Predictions, and what could not be read.

    Raises:
        MedicError: not one image could be read.
    """
    read: list[str] = []
    failed: list[tuple[str, str, str]] = []
    parts = [model.predict_pixels(batch) for batch in _batches(model, store, names, batch_size, read, failed)]
    if not parts:
        first = f"; the first: {failed[0][0]}, {failed[0][2]}" if failed else ""
        raise MedicError(f"not one of {len(names)} images in {store.location} could be read{first}")
    return Predicted(Prediction.joined(parts), read, pd.DataFrame(failed, columns=["image", "reason", "detail"]))


def _batches(
    model: Model, store: Store, names: Sequence[str], size: int, read: list[str], failed: list[tuple[str, str, str]]
) -> Iterator[np.ndarray]:
    def one(name: str) -> np.ndarray | ImageError:
        if name not in store:
            return ImageError(f"not in {store.location.name}", "unreadable")
        try:
            return model.preprocessing.pixels(store.read(name))
        except ImageError as error:
            return error

    batch = []
    for name, result in zip(names, each(one, names, title="predicting"), strict=True):
        if isinstance(result, ImageError):
            failed.append((name, result.reason, str(result)))
            continue
        read.append(name)
        batch.append(result)
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
