"""Several processes train what one would: the same images in each step, the same figures, the same weights."""

import inspect
import multiprocessing
import threading
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Corn, CrossEntropy, Objective
from medic.modeling.training.distributed import Processes, processes
from medic.modeling.training.fit import fit
from medic.modeling.training.loading import EpochSampler, PreparedDataset, loader
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.task import RETINOPATHY

CLOCK = ["images_per_second", "waiting", "seconds"]
PLAIN = Recipe(epochs=2, batch_size=4, learning_rate=3e-4, precision="32-true", balanced=True)
WEIGHTED = CrossEntropy(class_weights=(1.0, 2.0, 1.5, 3.0, 4.0))

# In the first life the second process breaks off in the second epoch; in the second life the run goes on. A batch of 38
# leaves one image for the last, and the first process no share of it.
TWO = """
from dataclasses import replace
import torch
from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.training import loading as load
from medic.modeling.classifier import Classifier
from medic.modeling.training.distributed import processes
from medic.modeling.training.fit import fit
from medic.modeling.objectives import Corn
from medic.task import RETINOPATHY

torch.set_num_threads(1)
prepared = Prepared.load(source)
get = load.PreparedDataset.__getitem__

def breaking(self, draw):
    if processes().rank == 1 and isinstance(draw, load.SampleKey) and draw.epoch == 1:
        print("the second process breaks off", flush=True)
        raise MedicError("broken off")
    return get(self, draw)

if life == "first":
    load.PreparedDataset.__getitem__ = breaking
fit(small(prepared, WEIGHTED), prepared, folder / "weighted", PLAIN)
odd = replace(PLAIN, batch_size=len(prepared.split("train")) - 1, ema=0.5)
fit(small(prepared, Corn()), prepared, folder / "odd", odd)
for settings, seed in ((replace(PLAIN, batch_size=5), 1), (PLAIN, processes().rank)):
    try:
        fit(small(prepared, WEIGHTED, seed), prepared, folder / "refused", settings)
    except MedicError as error:
        print(f"refused on {processes().rank}: {error}", flush=True)
"""


def small(prepared: Prepared, objective: Objective, seed: int = 1) -> Classifier:
    """A network without batch normalisation, which each process would take over its own images, and dropout."""
    torch.manual_seed(seed)
    model = Classifier(RETINOPATHY, "squeezenet1_1", objective, prepared.preprocessing, image_size=64)
    model.backbone.classifier[0].p = 0.0
    return model


def torchrun(copies: BaseContext, prepared: Prepared, folder: Path, life: str) -> tuple[str, str]:
    """What two processes print that are run as torchrun runs them, by the agent behind it, and the error that ends it.

    The command itself is called by tests/test_benchmarks_training.py.
    """
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        logs_specs=DefaultLogsSpecs(str(folder / life), redirects=Std.ALL),
        run_id=life,
        rdzv_endpoint="localhost:0",
        rdzv_backend="c10d",
        max_restarts=0,
        start_method=copies.get_start_method(),
        signals_to_handle="",  # those of this process stay pytest's
    )
    program = "from __future__ import annotations\n" + inspect.getsource(small) + TWO
    names = {"source": prepared.folder, "folder": folder, "life": life, "PLAIN": PLAIN, "WEIGHTED": WEIGHTED}
    hanging = threading.Timer(300, lambda: [process.kill() for process in multiprocessing.active_children()])
    hanging.start()
    try:
        elastic_launch(settings, exec)(program, names)
        error = ""
    except ChildFailedError as failed:
        error = str(failed)
    finally:
        hanging.cancel()
    return "".join(path.read_text() for path in (folder / life).rglob("stdout.log")), error


def assert_same(two: Run, one: Run) -> None:
    for column in one.history.columns.drop(CLOCK):
        assert np.allclose(two.history[column], one.history[column], atol=1e-4), column
    for which in ("best", "last"):
        first, second = (load_file(run.folder / which / "model.safetensors") for run in (one, two))
        assert first.keys() == second.keys()
        for name, values in first.items():
            assert torch.allclose(values, second[name], atol=1e-4), name


@pytest.mark.slow
def test_two_processes_end_like_one_even_when_one_of_them_broke_off(tiny_prepared, copies, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "")  # so that what the agent sets is put back
    broken, error = torchrun(copies, tiny_prepared, tmp_path, "first")
    assert "the second process breaks off" in broken
    assert error, "the end of one is the end of all"
    assert "4 images a step: 2 processes x 2" in broken
    assert broken.count("epoch   1/2") == 1, "only one prints"
    assert not Run.peek(tmp_path / "weighted").finished
    resumed, error = torchrun(copies, tiny_prepared, tmp_path, "second")
    assert error == ""
    assert resumed.count("going on after epoch 1") == 1
    assert "5 images a step cannot be shared evenly by 2 processes" in resumed
    for rank in (0, 1):
        assert f"refused on {rank}: the 2 processes differ in the settings of the training" in resumed
    assert not (tmp_path / "refused").exists()

    one = fit(small(tiny_prepared, WEIGHTED), tiny_prepared, tmp_path / "one", PLAIN)
    two = Run.load(tmp_path / "weighted")
    assert two.about["processes"] == 2
    assert sorted(path.name for path in two.folder.iterdir()) == sorted(path.name for path in one.folder.iterdir())
    assert_same(two, one)
    odd = replace(PLAIN, batch_size=len(tiny_prepared.split("train")) - 1, ema=0.5)
    assert_same(Run.load(tmp_path / "odd"), fit(small(tiny_prepared, Corn()), tiny_prepared, tmp_path / "odd one", odd))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_shares_of_a_batch_are_the_batch_in_its_order_none_twice_none_missing(count):
    for total in range(1, 12):
        batch = list(range(total))
        shares = [batch[Processes(count, rank).shares(total)[rank]] for rank in range(count)]
        assert [image for share in shares for image in share] == batch
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        for rank, share in enumerate(shares):
            assert Processes(count, rank).deal(batch) == (share or [0])


def test_the_loaders_of_all_processes_together_give_what_one_gives(tiny_prepared):
    dataset = PreparedDataset(tiny_prepared, "train")

    def batches(rank: int = 0, count: int = 1) -> list[list[int]]:
        order = EpochSampler(dataset.rows["label"].to_numpy(), RETINOPATHY, seed=3)
        order.set_epoch(4)
        dealt = loader(dataset, 9, order, processes=Processes(count, rank)).batch_sampler
        return [[draw.index for draw in batch] for batch in dealt]

    for whole, *parts in zip(batches(), *(batches(rank, 3) for rank in range(3)), strict=True):
        assert [index for part in parts for index in part] == whole


def test_without_torchrun_this_process_is_alone(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert processes() == Processes(count=1, rank=0, on_machine=1)
    assert processes().first


def test_machines_with_different_numbers_of_processes_are_refused(monkeypatch):
    from medic.modeling.training.distributed import join

    for name, value in (
        ("TORCHELASTIC_RUN_ID", "x"),
        ("WORLD_SIZE", "3"),
        ("RANK", "0"),
        ("LOCAL_WORLD_SIZE", "2"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(MedicError, match="the same --nproc-per-node"):
        join()
