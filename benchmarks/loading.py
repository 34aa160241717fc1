"""Feeding the training: from files to batches of 380 px, in one process and with workers.

Compared in one interleaved run, one thread each: the reference method on the camera's originals; the prepared set of
the same photographs with the very same augmentation, with the library's version of it, with torchvision's, and with the
lean default; and the limit, decoding the prepared JPEG and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import reference
import torch
from measure import ROOT, arguments, compared, interleave, rows, run, show, write
from photographs import camera_photographs, distinct
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_jpeg, read_file
from torchvision.transforms import v2

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.stores import open_store
from medic.modeling.augment import Augmentation, PublishedAugmentation
from medic.modeling.training.loading import Batch, PreparedDataset, loader

NAME = "loading"
SIZE, PREPARED, BATCH = 380, 512, 18
REFERENCE = "reference method on originals"
SAME = "prepared, the same augmentation"
LEAN = "medic: prepared, lean augmentation"
LIMIT = "decoding the prepared JPEG"
NORMALISED = f"{LEAN}, normalised too"
TARGETS = {SAME: 5.0, NORMALISED: 10.0}


class Images(Dataset):
    """Files that a function turns into arrays or tensors, float32 (3, 380, 380)."""

    def __init__(self, files: list[Path], read: Callable[[Path, np.random.Generator], np.ndarray | torch.Tensor]):
        self.files = files
        self.read = read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.as_tensor(self.read(self.files[index], np.random.default_rng(index)))


def from_original(path: Path, random: np.random.Generator) -> np.ndarray:
    return reference.normalise(reference.augment(reference.pixels(path.read_bytes(), SIZE), random))


def from_prepared(path: Path, random: np.random.Generator) -> np.ndarray:
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return reference.normalise(reference.augment(cv2.resize(pixels, (SIZE, SIZE)), random))


def torchvision_way() -> Callable[[Path, np.random.Generator], torch.Tensor]:
    chain = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(SIZE, scale=(0.8, 1.0), antialias=True),
            v2.ColorJitter(0.1, 0.1, 0.1),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(reference.MEAN.tolist(), reference.DEVIATION.tolist()),
        ]
    )
    return lambda path, random: chain(decode_jpeg(read_file(str(path))))


def normalised(batches: DataLoader) -> Iterator[torch.Tensor]:
    """What a model that does not normalise in its graph would need: a batch at a time, float32 (N, 3, S, S).

    Rows of the image are taken as one run of numbers, because adding three numbers over and over is slow.
    """
    factor = torch.from_numpy(np.tile(1 / (255 * reference.DEVIATION), SIZE).astype(np.float32))
    offset = torch.from_numpy(np.tile(-reference.MEAN / reference.DEVIATION, SIZE).astype(np.float32))
    for batch in batches:
        values = batch.images.view(len(batch.images), SIZE, -1).float().mul_(factor).add_(offset)
        yield values.view(batch.images.shape).permute(0, 3, 1, 2)


def go_through(batches: Iterable[torch.Tensor | Batch], images: int) -> None:
    seen = sum(len(batch if isinstance(batch, torch.Tensor) else batch.labels) for batch in batches)
    if seen != images:
        raise SystemExit(f"{seen} images came instead of {images}")


def write_originals(folder: Path, data: Path, images: int, kinds: int) -> tuple[pd.DataFrame, str]:
    photographs, origin = camera_photographs(data, ROOT / "outputs" / "benchmarks" / "photographs", kinds)
    names = [f"{number}.jpeg" for number in range(images)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(distinct(photographs[number % len(photographs)], number))
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0})
    return records, f"{origin}, {images} files made of them"


def compare(records: pd.DataFrame, originals: Path, prepared: Prepared, rounds: int) -> tuple[dict, dict]:
    """Seconds by method, and the images that one call of it goes through."""
    files = [prepared.folder / file for file in prepared.records["file"]]
    few = [originals / name for name in records["image"]][: len(records) // 4]

    def plain(read: Callable, files: list[Path]) -> Callable[[], None]:
        batches = DataLoader(Images(files, read), batch_size=BATCH)
        return lambda: go_through(batches, len(files))

    def ours(
        augmentation: Augmentation | PublishedAugmentation, workers: int = 0, normalise: bool = False
    ) -> Callable[[], None]:
        batches = loader(PreparedDataset(prepared, "train", augmentation, SIZE), BATCH, workers=workers)
        return lambda: go_through(normalised(batches) if normalise else batches, len(files))

    methods = {
        REFERENCE: plain(from_original, few),
        SAME: plain(from_prepared, files),
        "medic: prepared, published augmentation": ours(PublishedAugmentation()),
        "prepared, torchvision v2": plain(torchvision_way(), files),
        LEAN: ours(Augmentation()),
        NORMALISED: ours(Augmentation(), normalise=True),
        f"{LEAN}, 1 worker": ours(Augmentation(), 1),
        f"{LEAN}, 2 workers": ours(Augmentation(), 2),
        LIMIT: lambda: [cv2.imread(str(file)) for file in files],
    }
    work = dict.fromkeys(methods, len(files)) | {REFERENCE: len(few)}
    return interleave(methods, rounds), work


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        originals = Path(temporary) / "originals"
        originals.mkdir()
        records, origin = write_originals(
            originals, options.data, 36 if options.quick else 144, 2 if options.quick else 6
        )
        prepared = prepare(records, open_store(originals), Path(temporary) / "set", Preprocessing(PREPARED))
        seconds, work = compare(records, originals, prepared, 3 if options.quick else 9)
    table = rows(NAME, seconds, reference=REFERENCE, work=work, targets=TARGETS)
    table.append(compared(NAME, seconds, LEAN, LIMIT))
    show(
        table,
        f"data: {origin}; the reference reads a quarter of them",
        "one thread for each process; medic's batches are uint8, as its training takes them (the network normalises), "
        "unless it says so; the others' are normalised float32; workers live on between the epochs",
    )
    write(table, NAME, options)


if __name__ == "__main__":
    run(main)
