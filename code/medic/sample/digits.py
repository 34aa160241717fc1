"""The embedded sample of handwritten digits: real scans that scikit-learn carries, in MNIST's format."""

import os
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd

from medic.data.stores import Store, idx
from medic.files import write_bytes
from medic.sample.layout import PAGES, replacing_sample


def write_sample(folder: str | os.PathLike) -> None:
    """Write the four IDX files and ``SOURCES.md``; the same files each time (with the same OpenCV and zlib).

    ``folder`` is absent, empty, or holds an earlier sample of digits, which is replaced; anything else is an error.
    """
    from sklearn.datasets import load_digits

    digits, page = load_digits(), PAGES.get_template("digits.md.j2").render()
    content = {"images-idx3": np.stack([_like_mnist(scan) for scan in digits.images]), "labels-idx1": digits.target}
    # MNIST itself has the same file names, and is told apart by what describes it.
    with replacing_sample(folder, page, r"(train|t10k)-(images-idx3|labels-idx1)-ubyte\.gz", "SOURCES.md") as new:
        for kind, values in content.items():
            idx.write(new / f"train-{kind}-ubyte.gz", values[:1500].astype(np.uint8))
            idx.write(new / f"t10k-{kind}-ubyte.gz", values[1500:].astype(np.uint8))


def write_as_own(folder: str | os.PathLike, records: pd.DataFrame, store: Store) -> None:
    """Write digits as people have their own images, a folder a class: ``digit 3/00007.png`` and so on."""
    for name, label in zip(records["image"], records["label"], strict=True):
        write_bytes(Path(folder, f"digit {label}", PurePosixPath(name).name), store.read(name))


def _like_mnist(scan: np.ndarray) -> np.ndarray:
    """One digit of 8 x 8 (0..16) as uint8 (28, 28), its centre of mass within half a pixel of the middle if it fits."""
    digit = cv2.resize(scan * (255 / 16), (20, 20), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    centre = np.array([digit.sum(axis=1) @ np.arange(20), digit.sum(axis=0) @ np.arange(20)]) / digit.sum()
    top, left = np.rint(13.5 - centre).astype(int).clip(0, 8)
    return np.pad(np.rint(digit).astype(np.uint8), ((top, 8 - top), (left, 8 - left)))
