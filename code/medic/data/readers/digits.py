"""Handwritten digits as MNIST is published, as records and as arrays."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers.listed_images import EACH_IMAGE
from medic.data.records import validate
from medic.data.stores import FolderStore, Store, idx
from medic.errors import MedicError
from medic.task import DIGITS


def read_idx_set(folder: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the images and labels of MNIST's four files as they are, plain or as ``.gz``.

    Returns:
        ``train`` and ``test``: uint8 (N, H, W) and int64 (N,).

    Raises:
        MedicError: a file is missing or damaged, or there are not as many labels as images.
    """
    arrays = {}
    for split in idx.PARTS:
        files = [idx.find_file(Path(folder), split, what) for what in ("images", "labels")]
        if None in files:
            raise MedicError(f"{folder} lacks images or labels of {split}; it needs the four IDX files of the digits")
        images, labels = map(idx.read, files)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            shapes = f"images of {split} in {folder} have shape {images.shape} and the labels {labels.shape}"
            raise MedicError(f"the {shapes}; the n-th label belongs to the n-th image")
        arrays[split] = images, labels.astype(np.int64)
    return arrays


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, Store]:
    """Read the labels of MNIST's four files, and open the folder as a store of the images.

    Returns:
        Records with ``image`` (such as ``train/00042.png``), ``patient`` (the same: MNIST does not tell who wrote a
        digit), ``patient_source``, ``split`` and ``label`` (0..9), in the files' order; and the store.

    Raises:
        MedicError: as ``read_idx_set``; a label is no digit; ``images`` is another place than ``source``.
    """
    if images is not None and Path(images) != Path(source):
        raise MedicError(f"the images of digits lie beside their labels in {source}; leave {images} away")
    parts = [
        pd.DataFrame({"image": idx.image_names(split, len(labels)), "split": split, "label": labels})
        for split, (_, labels) in read_idx_set(source).items()
    ]
    records, store = pd.concat(parts).assign(patient_source=EACH_IMAGE), FolderStore(Path(source))
    records.insert(1, "patient", records["image"])
    return corrected(validate(records, DIGITS), store, DIGITS), store
