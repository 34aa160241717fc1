"""The published recipe against ours at equal CPU time, without ImageNet weights; and how ours was chosen.

Without an option both are trained for about eight CPU-minutes a seed on the training patients (ours includes making
photographs and pretraining on them), and their best models are scored on the test split: `low` and `high` are the worst
and the best seed. The published recipe starts from random weights, with a ResNet-18, as ours has, instead of its
EfficientNetV2-M, and with as many epochs as fit instead of 30; nothing else of it is changed.

With `--choices` no test image is opened: variants of our recipe are compared by cross-validation over the training
patients (three folds, about two CPU-minutes each, without what pretraining takes), their predictions pooled; `low` and
`high` are then a 95 % bootstrap interval over patients. Cut points are fitted on one half of them for the other.

Each training runs in a process of its own with one thread, as many side by side as there are cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import ROOT, Row, arguments, figure, origin, run, show, write

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import usable_cores
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.split import complete_splits
from medic.errors import MedicError
from medic.files import write_json
from medic.modeling.both_eyes import combine_eyes, fit_weight
from medic.modeling.evaluate import Evaluation, evaluate
from medic.modeling.objectives import Corn, CrossEntropy, Regression
from medic.modeling.thresholds import with_cut_points
from medic.modeling.training.fit import fit
from medic.modeling.training.plans import MEDIC, PUBLISHED, Plan
from medic.modeling.training.pretrain import Pretraining
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.task import RETINOPATHY, Prediction

WORK = ROOT / "outputs" / "benchmarks" / "recipes"
FIGURES = {"macro_f1": 0.45, "quadratic_weighted_kappa": 0.55}
"""What is reported, with the figures that the project set out to pass."""

FINALISTS = {
    "published": (replace(PUBLISHED, backbone=MEDIC.backbone, recipe=replace(PUBLISHED.recipe, epochs=15)), False),
    "medic": (MEDIC, True),
}
"""By name the plan, and whether it starts from the generated photographs. Each has as many epochs as eight CPU-minutes
allow; the published learning rate still falls after each third of them."""

_PLAIN = replace(
    MEDIC, objective=CrossEntropy(), contrast=None, recipe=replace(MEDIC.recipe, epochs=10, learning_rate=1e-3)
)
_CONTRAST = replace(_PLAIN, contrast=MEDIC.contrast)
_PRETRAINED = replace(_CONTRAST, recipe=replace(_PLAIN.recipe, learning_rate=MEDIC.recipe.learning_rate))
VARIANTS = {
    "plain": (_PLAIN, False),
    "contrast": (_CONTRAST, False),
    "contrast, pretrained": (_PRETRAINED, True),
    "contrast, pretrained, CORN": (replace(_PRETRAINED, objective=Corn()), True),
    "contrast, pretrained, regression": (replace(_PRETRAINED, objective=Regression()), True),
    "contrast, pretrained, averaged weights": (
        replace(_PRETRAINED, recipe=replace(_PRETRAINED.recipe, ema=0.98)),
        True,
    ),
}
"""The same by name, in ten epochs; cross-entropy where nothing else is said."""


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--choices", action="store_true", help="cross-validate variants instead; opens no test image")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SEED", "FOLD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, seed, fold = options.one
        _train(options, method, int(seed), int(fold))
        return
    name = "recipe_choices" if options.choices else "recipes"
    methods = VARIANTS if options.choices else FINALISTS
    seeds, folds = (1, 3) if options.choices else (options.seeds, 1)
    if options.quick:
        seeds, folds = 1, min(folds, 2)
        methods = {method: methods[method] for method in list(methods)[-2:]}
    _splits(options)  # once, not by several processes at a time
    torch.set_num_threads(1)
    for plan, pretrained in (_plan(options, method) for method in methods):
        if pretrained:
            _pretraining_minutes(plan)
    _side_by_side(options, [(m, seed, fold) for fold in range(folds) for seed in range(seeds) for m in methods])
    table: list[Row] = []
    for method in methods:
        table += _pooled(options, method, folds) if options.choices else _tested(options, method, seeds)
    show(table, origin(options.data), "one thread a training; CPU time includes pretraining where there is one")
    write(table, name, options)


def _side_by_side(options: argparse.Namespace, jobs: list[tuple[str, int, int]]) -> None:
    waiting = iter(jobs)
    running: dict[subprocess.Popen, tuple] = {}
    flags = [flag for flag, given in (("--quick", options.quick), ("--choices", options.choices)) if given]
    while True:
        while len(running) < usable_cores() and (job := next(waiting, None)):
            command = [sys.executable, __file__, "--data", str(options.data), *flags, "--one", *map(str, job)]
            started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
            running[started] = job
        if not running:
            return
        ended = next((process for process in running if process.poll() is not None), None)
        if ended is None:
            time.sleep(0.5)
            continue
        job = running.pop(ended)
        if ended.returncode:
            for process in running:
                process.terminate()
                process.wait()
            raise MedicError(f"the training {job} ended with {ended.returncode}; see its words above")
        print(f"done: {job[0]}, seed {job[1]}, fold {job[2]}", flush=True)


def run_folder(options: argparse.Namespace, method: str, seed: int, fold: int) -> Path:
    """Of one run; another plan or other photographs have another one."""
    kind = "choices" if options.choices else "final"
    key = _key(_plan(options, method), origin(options.data), str(options.data.resolve()))
    return WORK / kind / f"{method.replace(', ', '-').replace(' ', '_')}-{seed}-{fold}-{key}"


def _key(*settings: object) -> str:
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def _splits(options: argparse.Namespace) -> list[Prepared]:
    """The prepared sets: one with the source's test split, or three folds of its training patients."""
    records, store = retinopathy.read(options.data / "retinopathy")
    records = complete_splits(records, seed=0)
    folder = WORK / f"prepared-{_key(str(options.data.resolve()))}"
    preprocessing = Preprocessing(size=416)
    if not options.choices:
        return [prepare(records, store, folder / "all", preprocessing)]
    records = records[records["split"] != "test"].reset_index(drop=True)
    worst = records.groupby("patient", sort=True)["label"].max()
    order = np.random.default_rng(7).permutation(len(worst))
    order = order[np.argsort(-worst.to_numpy()[order], kind="stable")]  # the folds share each grade's patients evenly
    fold_of = dict(zip(worst.index[order], np.arange(len(order)) % 3, strict=True))
    sets = []
    for fold in range(3):
        held_out = records["patient"].map(fold_of) == fold
        split = np.where(held_out, "validation", "train")
        sets.append(prepare(records.assign(split=split), store, folder / f"fold-{fold}", preprocessing))
    return sets


def _train(options: argparse.Namespace, method: str, seed: int, fold: int) -> None:
    """One training; its CPU time is written beside the run, and a finished one is not trained again."""
    folder = run_folder(options, method, seed, fold)
    if (folder / "cpu.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)  # begun and not finished: its time would be told too short
    plan, pretrained = _plan(options, method)
    recipe = replace(plan.recipe, seed=seed)
    prepared = _splits(options)[fold]
    started = time.process_time()
    start = plan.pretrained(_pretraining(plan)) if pretrained else None  # made already, once for all seeds
    torch.manual_seed(seed)
    model = plan.classifier(RETINOPATHY, prepared.preprocessing, start)
    fit(model, prepared, folder, recipe)
    spent = (time.process_time() - started) / 60
    write_json(folder / "cpu.json", {"minutes": spent + (_pretraining_minutes(plan) if pretrained else 0)})


def _pretraining(plan: Plan) -> Path:
    return WORK / "pretraining" / _key(plan.backbone, plan.image_size, plan.contrast, plan.pretraining)


def _pretraining_minutes(plan: Plan) -> float:
    """CPU time of making and pretraining on the generated photographs; done now if it has not been."""
    folder = _pretraining(plan)
    if not (folder / "cpu.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        started = time.process_time()
        plan.pretrained(folder)
        write_json(folder / "cpu.json", {"minutes": (time.process_time() - started) / 60})
    return json.loads((folder / "cpu.json").read_text())["minutes"]


def _plan(options: argparse.Namespace, method: str) -> tuple[Plan, bool]:
    """A method's plan, and whether it starts from the generated photographs."""
    plan, pretrained = (VARIANTS if options.choices else FINALISTS)[method]
    if options.quick:
        recipe = replace(plan.recipe, epochs=1)
        plan = replace(plan, image_size=64, recipe=recipe, pretraining=Pretraining(40, Recipe(epochs=1)))
    return plan, pretrained


def _minutes(folders: list[Path]) -> list[float]:
    return [json.loads((folder / "cpu.json").read_text())["minutes"] for folder in folders]


def _tested(options: argparse.Namespace, method: str, seeds: int) -> list[Row]:
    """A method's figures on the test split, one eye at a time and with both; the weight comes from validation."""
    folders = [run_folder(options, method, seed, 0) for seed in range(seeds)]
    alone, both = [], []
    for folder in folders:
        trained = Run.load(folder)
        test, validation = evaluate(trained, "test"), evaluate(trained, "validation")
        weight = fit_weight(validation.prediction, validation.records)
        alone.append(test)
        both.append(replace(test, prediction=combine_eyes(test.prediction, test.records, weight)))
        print(f"{test}\n  both eyes, weight {weight:g}: {both[-1].table()['value'].round(3).to_dict()}")
    minutes = _minutes(folders)
    made = [
        figure(
            "recipes",
            method,
            "cpu_minutes",
            np.mean(minutes),
            spread=(min(minutes), max(minutes)),
            target=10,
            at_most=True,
        )
    ]
    for name, evaluations in ((method, alone), (f"{method}, both eyes", both)):
        for metric, target in FIGURES.items():
            values = [float(evaluation.table().loc[metric, "value"]) for evaluation in evaluations]
            wanted = target if method == "medic" else None
            spread = (min(values), max(values))
            made.append(figure("recipes", name, metric, np.mean(values), spread=spread, target=wanted))
    return made


def _pooled(options: argparse.Namespace, method: str, folds: int) -> list[Row]:
    """A variant's figures over all folds, each image predicted by a network that has not seen its patient."""
    folders = [run_folder(options, method, 0, fold) for fold in range(folds)]
    parts = [evaluate(Run.load(folder), "validation") for folder in folders]
    prediction = Prediction(
        parts[0].task,
        np.concatenate([part.prediction.probabilities for part in parts]),
        np.concatenate([part.prediction.grade for part in parts]),
    )
    whole = Evaluation(
        method, prediction, pd.concat([part.records for part in parts], ignore_index=True), parts[0].majority
    )
    made = [figure("recipe_choices", method, "cpu_minutes", np.mean(_minutes(folders)))]
    cut = with_cut_points(whole, "quadratic_weighted_kappa")
    for name, evaluation in ((method, whole), (f"{method}, cut points", cut)):
        for metric in FIGURES:
            row = evaluation.table().loc[metric]
            made.append(figure("recipe_choices", name, metric, row["value"], spread=(row["low"], row["high"])))
    return made


if __name__ == "__main__":
    run(main)
