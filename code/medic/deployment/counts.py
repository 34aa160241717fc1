"""What a service keeps of its answers: images by hour in the bins of its bundle's reference; no image and no name."""

import datetime
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medic.data.images.decode import read_header
from medic.deployment.drift import Hours, Measures, Reference
from medic.errors import MedicError
from medic.files import write_text
from medic.referral import appearance
from medic.task import Prediction

WRITE_SECONDS = 10.0
"""Between two writings."""


def measure(images: Sequence[bytes], pixels: np.ndarray, prediction: Prediction) -> dict[str, np.ndarray]:
    """Return what is watched of N images beside the decisions.

    Args:
        images: the files, of which the headers are read: ``size`` is the longer side in pixels.
        pixels: what the model saw of them, uint8 (N, S, S, 3) RGB, for ``brightness`` and ``sharpness`` (see
            ``medic.referral.appearance``).
        prediction: what it answered, for the ``distance``, where it has one.
    """
    headers = [read_header(data) for data in images]
    brightness, sharpness = appearance(pixels)
    size = np.array([max(header.width, header.height) for header in headers], float)
    found = {"brightness": brightness, "sharpness": sharpness, "size": size, "distance": prediction.distance}
    return {name: values for name, values in found.items() if values is not None}


class Counts:
    """What one process of a service keeps of its answers, in a file of its own. Safe to call from several threads.

    Args:
        folder: where it writes ``drift-<model>-<process>.jsonl``, whole: the reference, and a line an hour.
        reference: of the bundle that answers.
        model: the bundle's version.
    """

    def __init__(self, folder: str | Path, reference: Reference, model: str):
        self.reference = reference
        self._path, self._lock = Path(folder) / f"drift-{model}-{os.getpid()}.jsonl", threading.Lock()
        self._writing: threading.Timer | None = None
        # A file of this process number is an ended process's: its counts go on.
        self._hours: Hours = read_counts([self._path])[1] if self._path.is_file() else {}
        self.close()  # what cannot be written is said before anything is counted

    def add(self, measures: Measures, prediction: Prediction) -> None:
        """Count N answered images; they are written within ten seconds, together with those that come meanwhile."""
        found = self.reference.count(measures, prediction)
        with self._lock:
            _add(self._hours, f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H}", found)
            if self._writing is None:
                self._writing = threading.Timer(WRITE_SECONDS, self.close)
                self._writing.daemon = True
                self._writing.start()

    def close(self) -> None:
        """Write what was counted since the last writing."""
        with self._lock:
            if self._writing is not None:
                self._writing.cancel()
                self._writing = None
            lines = [{"reference": self.reference.to_dict()}]
            for hour, counts in self._hours.items():
                lines.append({"hour": hour, "counts": {name: images.tolist() for name, images in counts.items()}})
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))


def _add(hours: Hours, hour: str, found: Mapping[str, np.ndarray]) -> None:
    there = hours.setdefault(hour, {})
    for name, images in found.items():
        there[name] = there.get(name, 0) + np.asarray(images)


def read_counts(files: Iterable[str | Path]) -> tuple[Reference, Hours]:
    """Read and add up what the processes of a service have counted.

    Raises:
        MedicError: there is no file, one is damaged, or they are of several models.
    """
    reference, hours = None, {}
    for file in files:
        try:
            first, *lines = map(json.loads, Path(file).read_text().splitlines())
            other = Reference.from_dict(first["reference"])
            bins = {name: len(images) for name, images in other.counts.items()}
            for line in lines:
                datetime.datetime.fromisoformat(line["hour"])
                if {name: len(images) for name, images in line["counts"].items()} != bins:
                    raise ValueError(f"{line['hour']} has other bins than the reference")
                _add(hours, line["hour"], line["counts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MedicError(f"{file} holds no counts of a service ({error}); name its drift-*.jsonl files") from error
        if reference not in (None, other):
            raise MedicError(f"{file} counts for another model than the files before; compare one model at a time")
        reference = other
    if reference is None:
        raise MedicError("no counts are there: no request was answered, or the bundle has no reference (package again)")
    return reference, dict(sorted(hours.items()))
