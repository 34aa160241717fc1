"""Two processes train together: each on its share of the images, with the metrics of all of them."""

import multiprocessing
import threading
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run

# In the first life the second process breaks off after the first epoch; in the second life the run goes on.
TWO = """
import os
import torch
from dataclasses import replace
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.training.fit import fit
from medic.task import RETINOPATHY

def breaking(row):
    if life == "first" and os.environ["RANK"] == "1":
        raise MedicError("broken off")

torch.set_num_threads(1)
torch.manual_seed(1)
model = Classifier(RETINOPATHY, "squeezenet1_1", preprocessing=prepared.preprocessing, image_size=32)
try:
    fit(model, prepared, folder / "refused", replace(recipe, batch_size=5))
except MedicError as error:
    print(f"refused: {error}", flush=True)
fit(model, prepared, folder / "run", recipe, breaking)
"""


def torchrun(copies: BaseContext, folder: Path, life: str, **names: object) -> tuple[str, str]:
    """Run two processes as torchrun runs them, by the agent behind it: what they print, and the error that ends it."""
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
    hanging = threading.Timer(300, lambda: [process.kill() for process in multiprocessing.active_children()])
    hanging.start()
    try:
        elastic_launch(settings, exec)(TWO, {"folder": folder, "life": life, **names})
        error = ""
    except ChildFailedError as failed:
        error = str(failed)
    finally:
        hanging.cancel()
    return "".join(path.read_text() for path in (folder / life).rglob("stdout.log")), error


@pytest.mark.slow
def test_two_processes_train_together_and_go_on_after_one_of_them_broke_off(
    tiny_prepared, copies, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "")  # so that what the agent sets is put back
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=1e-3, precision="32-true", choose_by="last")
    first = tiny_prepared.split("validation")["file"][0]
    prepared = replace(tiny_prepared, records=tiny_prepared.records[tiny_prepared.records["file"] != first])
    broken, error = torchrun(copies, tmp_path, "first", prepared=prepared, recipe=recipe)
    assert error, "the end of one is the end of all"
    assert broken.count("5 images a step cannot be shared evenly by 2 processes") == 2
    assert broken.count("epoch   1/2") == 1, "only one prints"
    assert not (tmp_path / "refused").exists()
    ended, error = torchrun(copies, tmp_path, "second", prepared=prepared, recipe=recipe)
    assert error == ""
    assert ended.count("epoch   1/2") == 0
    assert ended.count("epoch   2/2") == 1
    run = Run.load(tmp_path / "run")
    assert run.about["processes"] == 2

    # One of the 11 validation images is given to both processes, and counts once.
    rows = prepared.split("validation")
    prediction = run.model("last").predict_pixels(np.stack([tiny_prepared.pixels(file) for file in rows["file"]]))
    assert (prediction.decided == rows["label"]).mean() == pytest.approx(run.history["validation_accuracy"].iloc[-1])
