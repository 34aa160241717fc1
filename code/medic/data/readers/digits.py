"""Handwritten digits as the four IDX files of MNIST."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data import idx
from medic.data.corrections import corrected
from medic.data.idx_store import PARTS, IdxStore, find_file, image_name
from medic.data.records import validate
from medic.data.stores import FolderStore
from medic.errors import MedicError
from medic.task import DIGITS


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
        Records with the columns ``image`` (such as ``train/00042.png``), ``patient`` (the same), ``split`` (``train``,
        ``test``) and ``label`` (0..9), in the files' order; and the store, which gives each image as a PNG file.

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
        if find_file(place, split, what, dimensions) is None
    ]
    if missing:
        raise MedicError(
            f"{folder} lacks {', '.join(missing)}; the set of digits has four files, for images and labels of train "
            "and t10k, plain or as .gz"
        )
    parts = []
    for split in PARTS:
        labels = _labels(find_file(folder, split, "labels", 1))
        path = find_file(pictures, split, "images", 3)
        count = idx.read_header(path)[1][0]
        if count != len(labels):
            raise MedicError(
                f"{path.name} has {count:,} images and the labels beside it are {len(labels):,}; the n-th label "
                "belongs to the n-th image, so get both files from one source"
            )
        names = [image_name(split, number, count) for number in range(count)]
        parts.append(pd.DataFrame({"image": names, "patient": names, "split": split, "label": labels}))
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
