"""Images as one array of pixels, for networks that are fed from memory, and the order in which they are fed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data import idx
from medic.data.idx_store import PARTS, find_file
from medic.data.parallel import each
from medic.data.preprocess import Preprocessing
from medic.data.stores import Store
from medic.errors import ImageError, MedicError


def grey_arrays(records: pd.DataFrame, store: Store, size: int) -> np.ndarray:
    """Read every image as one grey channel, through the same ``Preprocessing`` as everywhere: padded, then scaled.

    Args:
        records: one row an image; all images end in one array, so take the rows of one split, or a part of them.
        store: where the images are.
        size: side of the square that comes out, in pixels (16..4096).

    Returns:
        uint8 (N, size, size), in the rows' order. A grey image that has this size already keeps its pixels.

    Raises:
        MedicError: an image is not in the store.
        ImageError: one cannot become pixels; the message begins with its name.
    """
    names = list(records["image"])
    absent = [name for name in names if name not in store]
    if absent:
        raise MedicError(
            f"{len(absent)} of {len(names)} images are not in {store.location}, for instance {absent[0]}; "
            "check(records, store) lists them, leave them out"
        )
    preprocessing = Preprocessing(size, crop="square", grey=True)

    def one(name: str) -> np.ndarray:
        try:
            return preprocessing.pixels(store.read(name))[:, :, 0]
        except ImageError as error:
            raise ImageError(f"{name}: {error}", error.reason) from error

    pixels = np.empty((len(names), size, size), np.uint8)
    for place, image in zip(pixels, each(one, names, title="reading"), strict=True):
        place[:] = image
    return pixels


def read_idx_set(folder: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The images and labels of MNIST's four files as they are: what ``medic.data.readers.digits`` makes records of.

    Returns:
        ``train`` and ``test``: uint8 (N, H, W) and int64 (N,).

    Raises:
        MedicError: a file is missing or damaged; ``medic.data.readers.digits.read`` says more.
    """
    arrays = {}
    for split in PARTS:
        files = [find_file(Path(folder), split, *kind) for kind in (("images", 3), ("labels", 1))]
        if None in files:
            raise MedicError(f"{folder} lacks images or labels of {split}; it needs the four IDX files of the digits")
        images, labels = map(idx.read, files)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise MedicError(
                f"the images of {split} in {folder} have shape {images.shape} and the labels {labels.shape}; the n-th "
                "label belongs to the n-th image, so get both files from one source"
            )
        arrays[split] = images, labels.astype(np.int64)
    return arrays


def write_idx_part(folder: str | os.PathLike, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images and labels of one split as two of MNIST's files, for programs that read nothing else.

    Args:
        folder: where they go.
        split: ``train`` or ``test``.
        images: uint8 (N, H, W).
        labels: (N,), 0..255.
    """
    idx.write(Path(folder) / f"{PARTS[split]}-images-idx3-ubyte.gz", images)
    idx.write(Path(folder) / f"{PARTS[split]}-labels-idx1-ubyte.gz", np.asarray(labels).astype(np.uint8))


def batch_order(rows: np.ndarray, batch_size: int, epochs: int, seed: int) -> np.ndarray:
    """Which images make each batch, for a whole training: what several frameworks need to see the same.

    Each epoch is a new permutation. The images left over when the batches are full wait for the next epoch, so that
    every batch has the same shape.

    Args:
        rows: the positions to draw from.
        batch_size: images a batch.
        epochs: passes over the rows.
        seed: the same seed gives the same order.

    Returns:
        int32 (epochs, batches, batch_size).

    Raises:
        MedicError: there are fewer rows than a batch has.
    """
    batches = len(rows) // batch_size
    if not batches:
        raise MedicError(f"{len(rows)} images do not fill a batch of {batch_size}; make the batches smaller")
    random = np.random.default_rng(seed)
    drawn = [random.permutation(rows)[: batches * batch_size].reshape(batches, batch_size) for _ in range(epochs)]
    return np.stack(drawn).astype(np.int32)
