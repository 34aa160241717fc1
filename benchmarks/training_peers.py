"""The same training by others: who they are, the environment of those that are no dependency here, and their runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, Row, figure, rows
from peers.job import Job, Photograph

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.readers import retinopathy
from medic.data.split import complete_splits
from medic.data.stores import FolderStore
from medic.errors import MedicError
from medic.files import write_text
from medic.modeling.metrics import confusion_matrix, macro_f1, quadratic_weighted_kappa
from medic.task import RETINOPATHY

PREPARED_SIZE = 256
"""Side in pixels of the prepared images; the networks see 224."""

REFERENCE = "plain loop, originals"
OURS = "medic.modeling.training.fit"
OWN = {REFERENCE: "original_loop", "plain loop, prepared": "prepared_loop", OURS: "medic_fit"}
OTHERS = {"fastai": "fastai_loop", "timm-style loop": "timm_loop"}
"""Method to the module of ``peers/`` that runs it: in this environment, and in that of the peers."""

OVER_EPOCHS = "images_per_s_over_epochs"

ENVIRONMENT = ROOT / "outputs" / "peers-env"
LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Extent:
    """How much is trained.

    Attributes:
        train: photographs to train on, at most.
        validation: photographs to look at after an epoch, at most.
        epochs: passes.
        rounds: runs of every peer.
        batch_size: images a step.
        size: side in pixels of what the network sees.
    """

    train: int
    validation: int
    epochs: int
    rounds: int
    batch_size: int = 32
    size: int = 224


def make_environment(install: bool) -> Path:
    """The interpreter of the peers' environment; made by uv when it is absent or older than its requirements.

    Args:
        install: whether it may be made now (some GB, mostly torch, which uv links from its cache where it has it).

    Raises:
        MedicError: it is not there and may not or cannot be made; the sentence says why.
    """
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "ready"
    requirements = Path(__file__).parent / "peers" / "requirements.txt"
    same = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "torchvision")]
    wanted = requirements.read_text(encoding="utf-8") + "\n".join(same) + "\n"
    if python.is_file() and ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return python
    where = os.path.relpath(ENVIRONMENT, ROOT)
    if not install:
        raise MedicError(f"their environment {where} is not made; run benchmarks/training.py without --quick once")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 10:
        raise MedicError(f"their environment {where} wants 10 GB of disk, {free:.0f} GB are free; free some space")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise MedicError(f"their environment {where} is made with uv, which is not here; install the extra dev")
    print(f"making {where} for {', '.join(OTHERS)}", flush=True)
    for command in (
        ["venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
        ["pip", "install", "--quiet", "--python", str(python), "--requirements", str(requirements), *same],
    ):
        ended = subprocess.run([uv, *command], capture_output=True, text=True, check=False)
        if ended.returncode:
            said = " ".join(ended.stderr.split())[-300:]
            raise MedicError(f"their environment {where} could not be made (uv {command[0]}: {said}); see the network")
    write_text(ready, wanted)
    return python


def prepare_photographs(data: Path, folder: Path, extent: Extent) -> Job:
    """Prepare the photographs of one comparison below ``folder``, and write down the training that all do.

    Args:
        data: folder that holds ``retinopathy/``.
        folder: where the prepared set goes.
        extent: how much is trained.

    Raises:
        MedicError: the originals lie in a zip file, where a plain loop cannot open them by name.
    """
    # The peers run in another folder.
    records, store = retinopathy.read(data.resolve() / "retinopathy")
    if not isinstance(store, FolderStore):
        raise MedicError(f"{store.location} is a zip file, and the plain loop opens single files; unpack it first")
    records = complete_splits(records[[name in store for name in records["image"]]])
    counts = {"train": extent.train, "validation": extent.validation}
    chosen = records[records["split"].isin(counts)].sample(frac=1, random_state=0)
    chosen = chosen[chosen.groupby("split").cumcount() < chosen["split"].map(counts)].sort_index()
    prepared = prepare(chosen, store, folder.resolve(), Preprocessing(size=PREPARED_SIZE))
    photographs = {
        split: tuple(
            Photograph(str(prepared.folder / row.file), str(store.location / row.image), int(row.label))
            for row in prepared.split(split).itertuples()
        )
        for split in counts
    }
    return Job(
        **photographs,
        folder=str(prepared.folder),
        classes=len(RETINOPATHY.classes),
        epochs=extent.epochs,
        batch_size=extent.batch_size,
        size=extent.size,
        seed=0,
        threads=torch.get_num_threads(),
    )


def run_peer(command: list[str], job: Job, folder: Path, threads: int) -> dict:
    """Run one peer in a process of its own.

    Args:
        command: the interpreter and its arguments, before the file of the job.
        job: what to train.
        folder: where that file goes.
        threads: of OpenMP, in each process.

    Returns:
        What ``peers.job.answer`` printed.

    Raises:
        MedicError: it failed or hung; the message ends with its last words.
    """
    path = Path(tempfile.mkdtemp(dir=folder)) / "job.json"
    write_text(path, job.to_json())
    name = " ".join(command[1:])
    try:
        ended = subprocess.run(
            [*command, str(path)],
            cwd=Path(__file__).parent,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MedicError(f"{name} took more than {LIMIT_SECONDS} s and was stopped; use a smaller extent") from error
    if ended.returncode:
        raise MedicError(f"{name} ended with {ended.returncode}; its last words: {ended.stderr.strip()[-1500:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def compare(job: Job, folder: Path, rounds: int, install: bool) -> tuple[list[Row], list[str]]:
    """Run every peer in rotated order, and report speed and, for information, how well the network then grades.

    Args:
        job: what all train.
        folder: for files that pass between the processes.
        rounds: runs of each; the seed is the round's number.
        install: whether the environment of those that need one may be made now.

    Returns:
        The rows, and notes for below the table.
    """
    commands = {method: [sys.executable, "-m", f"peers.{module}"] for method, module in OWN.items()}
    notes, missing = [], []
    try:
        python = make_environment(install)
        commands |= {method: [str(python), "-m", f"peers.{module}"] for method, module in OTHERS.items()}
    except MedicError as error:
        missing = list(OTHERS)
        notes.append(f"{' and '.join(missing)} did not run: {error}")
    answers: dict[str, list[dict]] = defaultdict(list)
    names = list(commands)
    for turn in range(rounds):
        for method in names[turn % len(names) :] + names[: turn % len(names)]:
            print(f"round {turn + 1}/{rounds}: {method}", flush=True)
            answers[method].append(run_peer(commands[method], _seeded(job, turn), folder, job.threads))
    truth = np.array([photograph.label for photograph in job.validation])
    seconds, table = {}, []
    for method, given in answers.items():
        title = f"{method} ({given[0]['with']})"
        seconds[title] = np.concatenate([answer["seconds"] for answer in given])
        confusions = [confusion_matrix(truth, np.array(one["decided"]), job.classes) for one in given]
        for metric in (macro_f1, quadratic_weighted_kappa):
            values = [float(metric(confusion)) for confusion in confusions]
            name = f"validation_{metric.__name__}_after_{job.epochs}_epochs"
            table.append(figure("training", title, name, np.median(values)))
    reference = next(title for title in seconds if title.startswith(REFERENCE))
    speed = rows("training", seconds, reference=reference, work=len(job.train), metric=OVER_EPOCHS)
    epochs = [_epoch(row.method, seconds[row.method], row.ratio) for row in speed]
    absent = [Row("training", method, OVER_EPOCHS, None) for method in missing]
    notes.append(
        f"peers: resnet18 from scratch, {len(job.train)} photographs to train on and {len(job.validation)} to look at, "
        f"{job.size} px, batch {job.batch_size}, {job.epochs} epochs, {rounds} runs each, no worker processes, "
        f"{job.threads} threads; an epoch is training and one pass over the validation photographs"
    )
    return [*speed, *epochs, *table, *absent], notes


def compare_processes(job: Job, folder: Path, rounds: int) -> list[Row]:
    """Two processes with one thread each under torchrun, against one process with two threads; the same batch."""
    alone = [sys.executable, "-m", "peers.medic_fit"]
    ways = {
        f"{OURS}, 1 process x 2 threads": (alone, 2),
        f"{OURS}, torchrun 2 processes x 1 thread": ([*launcher(2), "-m", "peers.medic_fit"], 1),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    names = list(ways)
    for turn in range(rounds):
        for method in names[turn % 2 :] + names[: turn % 2]:
            print(f"round {turn + 1}/{rounds}: {method}", flush=True)
            command, threads = ways[method]
            given = run_peer(command, _seeded(job, turn, threads), folder, threads)
            seconds[method] += given["seconds"]
    timed = {method: np.array(values) for method, values in seconds.items()}
    return rows("training", timed, reference=names[0], work=len(job.train), metric="images_per_s_on_two_cores")


def launcher(processes: int) -> list[str]:
    """Torchrun on this machine alone, as a command before ``-m``."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]


def _seeded(job: Job, seed: int, threads: int | None = None) -> Job:
    return Job(**(vars(job) | {"seed": seed, "threads": threads or job.threads}))


def _epoch(method: str, seconds: np.ndarray, ratio: float | None) -> Row:
    low, middle, high = (float(value) for value in np.percentile(seconds, (25, 50, 75)))
    return Row("training", method, "s_per_epoch", middle, low, high, ratio)
