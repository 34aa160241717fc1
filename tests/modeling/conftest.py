"""A network that trains in seconds, and a run of it on the small set."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import pandas as pd
import pytest
import torch

from medic.data.prepare import Prepared
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Objective
from medic.modeling.training.fit import Recipe, fit
from medic.modeling.training.run import Run
from medic.task import RETINOPATHY


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, other tests want the cores, and bits depend on the number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _in_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def copies() -> BaseContext:
    """Starts processes as copies of one that has imported what trains, and has done nothing else.

    Importing Lightning takes longer than what most tests run in a process of its own. A copy of this process instead,
    which has computed, could wait for its threads for ever.
    """
    multiprocessing.set_forkserver_preload(["medic.modeling.training.fit", "medic.modeling.tune"])
    return multiprocessing.get_context("forkserver")


@pytest.fixture(scope="session")
def start(copies: BaseContext) -> Callable[..., BaseProcess]:
    """Starts a program, given as text and the names that it finds, as a process of its own."""

    def started(program: str, **names: object) -> BaseProcess:
        process = copies.Process(target=exec, args=(program, names))
        process.start()
        return process

    return started


@pytest.fixture(scope="session")
def network(tiny_prepared: Prepared) -> Callable[..., Classifier]:
    """The same small network each time, with dropout and batch normalisation."""

    def build(objective: Objective | None = None, seed: int = 1, **settings: object) -> Classifier:
        torch.manual_seed(seed)
        settings = {"preprocessing": tiny_prepared.preprocessing, "image_size": 64} | settings
        return Classifier(RETINOPATHY, "mobilenet_v3_small", objective, **settings)

    return build


@pytest.fixture(scope="session")
def few(chest_prepared) -> Prepared:
    """64 images to train on, and all that validate; none to test on. Nothing is learned well on them."""
    records = chest_prepared.records
    kept = [records[records["split"] == "train"].head(64), records[records["split"] == "validation"]]
    return replace(chest_prepared, records=pd.concat(kept, ignore_index=True))


@pytest.fixture(scope="session")
def quick() -> Recipe:
    return Recipe(epochs=3, batch_size=16, learning_rate=3e-3, precision="32-true")


@pytest.fixture(scope="session")
def run(
    tiny_prepared: Prepared, network: Callable[..., Classifier], quick: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A finished run on the small set; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "small network"
    with one_thread():
        return fit(network(), tiny_prepared, folder, quick)
