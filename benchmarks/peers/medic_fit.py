"""This project: ``medic.modeling.training.fit`` with its default recipe. Under torchrun processes share it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from peers.job import Job, answer

from medic.data.prepare import Prepared
from medic.modeling.classifier import Classifier
from medic.modeling.training.fit import Recipe, fit
from medic.task import RETINOPATHY


def main() -> None:
    job = Job.from_arguments()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    whole = Prepared.load(job.folder)
    file = {f"{job.folder}/{name}": name for name in whole.records["file"]}
    chosen = [file[photograph.prepared] for photograph in (*job.train, *job.validation)]
    records = whole.records.set_index("file").loc[chosen].reset_index()
    prepared = replace(whole, records=records)
    model = Classifier(
        RETINOPATHY, backbone="resnet18", preprocessing=prepared.preprocessing, image_size=job.size, weights=None
    )
    recipe = Recipe(epochs=job.epochs, batch_size=job.batch_size, seed=job.seed)
    # Under torchrun every process must name one folder; the caller's, beside the job, is known to all.
    place = Path(sys.argv[-1]).parent
    with tempfile.TemporaryDirectory(dir=place) as own, contextlib.redirect_stdout(sys.stderr):
        folder = place / "shared-run" if "WORLD_SIZE" in os.environ else Path(own) / "run"
        run = fit(model, prepared, folder, recipe)
        seconds, last = run.history["seconds"].to_list(), run.model("last")
    if int(os.environ.get("RANK", 0)):
        return
    pixels = np.stack([prepared.pixels(file[photograph.prepared]) for photograph in job.validation])
    answer(seconds, last.predict_pixels(pixels).decided.tolist())


if __name__ == "__main__":
    main()
