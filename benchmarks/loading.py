"""Feeding the training: from files to batches of 380 px.

Compared in one interleaved run, one thread each: the reference method on the camera's originals; the prepared set of
the same photographs with the very same augmentation, with the library's version of it and with its lean default; and
the limit, decoding the prepared JPEG and nothing else.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import arguments, compared, interleave, rows, run, show, write
from peers import reference
from preparation import camera_photographs, write_originals
from torch.utils.data import DataLoader, Dataset

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.stores import open_store
from medic.modeling.augment import Augmentation, PublishedAugmentation
from medic.modeling.training.loading import PreparedDataset, loader

NAME = "loading"
SIZE, PREPARED, BATCH = 380, 512, 18
REFERENCE = "reference method on originals"
SAME = "prepared, the same augmentation"
LEAN = "medic: prepared, lean augmentation"
LIMIT = "decoding the prepared JPEG"
TARGETS = {SAME: 5.0, LEAN: 10.0}


class Images(Dataset):
    """Files that the reference method augments and normalises, float32 (3, 380, 380)."""

    def __init__(self, files: list[Path], read: Callable[[Path], np.ndarray]):
        self.files, self.read = files, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        pixels = self.read(self.files[index])
        return reference.normalise(reference.augment(pixels, np.random.default_rng(index)))


def from_original(path: Path) -> np.ndarray:
    return reference.pixels(path.read_bytes(), SIZE)


def from_prepared(path: Path) -> np.ndarray:
    return cv2.resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), (SIZE, SIZE))


def go_through(batches: Iterable) -> Callable[[], None]:
    def all_of_them() -> None:
        for _ in batches:
            pass

    return all_of_them


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    photographs, source = camera_photographs(options.data, 2 if options.quick else 6)
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory() as originals:
        records = write_originals(Path(originals), photographs, 36 if options.quick else 144)
        prepared = prepare(records, open_store(originals), temporary, Preprocessing(PREPARED))
        files = [prepared.folder / file for file in prepared.records["file"]]
        few = [Path(originals) / name for name in records["image"]][: len(records) // 4]
        augmentations = {"published": PublishedAugmentation(), "lean": Augmentation()}
        sets = {name: PreparedDataset(prepared, "train", how, SIZE) for name, how in augmentations.items()}
        batches = {
            REFERENCE: DataLoader(Images(few, from_original), BATCH),
            SAME: DataLoader(Images(files, from_prepared), BATCH),
            **{f"medic: prepared, {name} augmentation": loader(some, BATCH, workers=0) for name, some in sets.items()},
        }
        methods = {name: go_through(some) for name, some in batches.items()}
        methods[LIMIT] = lambda: [cv2.imread(str(file)) for file in files] and None
        seconds = interleave(methods, 3 if options.quick else 9)
    work = dict.fromkeys(methods, len(files)) | {REFERENCE: len(few)}
    table = rows(NAME, seconds, reference=REFERENCE, work=work, targets=TARGETS)
    table.append(compared(NAME, seconds, LEAN, LIMIT))
    note = "medic's batches are uint8, as its training takes them; the others' are normalised float32"
    show(table, f"data: {source}, {len(files)} files made of them; the reference reads a quarter", note)
    write(table, NAME, options)


if __name__ == "__main__":
    run(main)
