"""Images as one array of pixels, for networks that are fed from memory, and the order in which they are fed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.corrections import corrected
from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
from medic.data.records import validate
from medic.data.stores import FolderStore, IdxStore, Store, idx
from medic.data.stores.idx import PARTS, find_file, image_name
from medic.errors import ImageError, MedicError
from medic.task import DIGITS


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
        files = [find_file(Path(folder), split, what) for what in ("images", "labels")]
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


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, IdxStore]:
    """Read the labels, and open the images as a store.

    The files are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, plain or as ``.gz`` (the plain one is taken where both are there); ``.idx3`` instead
    of ``-idx3`` is understood too.

    MNIST does not tell who wrote a digit: each image counts as a patient of its own. The source's split keeps writers
    apart, and a validation split that is dealt from its training part does not.

    Args:
        source: the folder that holds the files.
        images: the folder that holds the two files of images, where that is another one.

    Returns:
        Records with the columns ``image`` (such as ``train/00042.png``), ``patient`` (the same), ``patient_source``,
        ``split`` (``train``, ``test``) and ``label`` (0..9), in the files' order; and the store, which gives each
        image as a PNG file.

    Raises:
        MedicError: a file is missing or damaged, the numbers of images and labels differ, or a label is no digit.
    """
    folder, pictures = Path(source), Path(source if images is None else images)
    for place in (folder, pictures):
        if not place.is_dir():
            raise MedicError(f"there is no folder {place}; name the one that holds the four IDX files of the digits")
    missing = [
        f"{PARTS[split]}-{what}-idx{dimensions}-ubyte.gz"
        for split in PARTS
        for what, dimensions, place in (("images", 3, pictures), ("labels", 1, folder))
        if find_file(place, split, what) is None
    ]
    if missing:
        raise MedicError(
            f"{folder} lacks {', '.join(missing)}; the set of digits has four files, for images and labels of train "
            "and t10k, plain or as .gz"
        )
    parts = []
    for split in PARTS:
        labels = _labels(find_file(folder, split, "labels"))
        path = find_file(pictures, split, "images")
        count = idx.read_shape(path)[1][0]
        if count != len(labels):
            raise MedicError(
                f"{path.name} has {count:,} images and the labels beside it are {len(labels):,}; the n-th label "
                "belongs to the n-th image, so get both files from one source"
            )
        names = [image_name(split, number, count) for number in range(count)]
        parts.append(
            pd.DataFrame({"image": names, "patient": names, "patient_source": "image", "split": split, "label": labels})
        )
    store = IdxStore(pictures)
    store.names()  # images that are no images show themselves here, not in the middle of a training
    return corrected(validate(pd.concat(parts), DIGITS), FolderStore(folder), DIGITS), store


def _labels(path: Path) -> np.ndarray:
    labels = idx.read(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise MedicError(
            f"{path} holds {labels.dtype} of shape {labels.shape}, not one whole number an image; are images and "
            "labels exchanged?"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(DIGITS.classes)))
    if len(outside):
        raise MedicError(
            f"{path} has {len(outside)} labels that are no digit 0..9, the first at position {outside[0]}: "
            f"{labels[outside[0]]}; get the file again"
        )
    return labels.astype(np.int64)
