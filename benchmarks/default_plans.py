"""Default plans: what was tried for ``medic train``, by cross-validation on patients of the training photographs.

    python benchmarks/default_plans.py retinopathy|skin_lesion [--only NAME ...] [--quick]

The photographs of the test split take no part. The others are dealt into three folds by patient; each way of training
learns from two of them, and is scored on its answers for the third, all folds together. Trainings are kept
below ``outputs/``: started again, it goes on.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, Row, arguments, figure, origin, run, show, write
from PIL import Image
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import DATA_SETS
from medic.data.split import complete_splits
from medic.modeling.features import fit_head
from medic.modeling.objectives import Corn
from medic.modeling.training.plans import LESIONS, MEDIC, Plan
from medic.predict import MeanOverFlips

FOLDS = 3


def _with(plan: Plan, recipe: dict | None = None, **changes: object) -> Plan:
    return replace(plan, recipe=replace(plan.recipe, **(recipe or {})), **changes)


WAYS = {
    "retinopathy": {
        "288 px": MEDIC,
        "224 px": _with(MEDIC, image_size=224),
        "CORN": _with(MEDIC, objective=Corn(), weighted=0),
        "20 epochs": _with(MEDIC, {"epochs": 20}),
        "frozen": MEDIC,
    },
    "skin_lesion": {"224 px": LESIONS, "frozen": LESIONS, "frozen, 320 px": _with(LESIONS, image_size=320)},
}
"""Data set to what is tried by name: a plan; one that is called frozen learns a head on the network's features."""


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("data_set", choices=list(WAYS))
    parser.add_argument("--only", nargs="+", help="names of those to try, instead of all")
    options = parser.parse_args()
    ways = {name: plan for name, plan in WAYS[options.data_set].items() if not options.only or name in options.only}
    folder = ROOT / "outputs" / "default_plans" / options.data_set
    records, store = DATA_SETS[options.data_set].read(options.data.resolve() / options.data_set)
    prepared = prepare(complete_splits(records, seed=0), store, folder / "prepared", Preprocessing(size=384))
    table = []
    for name, plan in ways.items():
        table += score(name, plan, folds(prepared), folder)
    show(table, origin(options.data))
    write(table, f"plans_{options.data_set}", options)


def folds(prepared: Prepared) -> list[Prepared]:
    """Deal all images but those of the test split into folds by patient; each is once the validation split."""
    known = prepared.records[prepared.records["split"] != "test"].reset_index(drop=True)
    dealt = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(known, known["label"], known["patient"])
    made = []
    for _, asked in dealt:
        split = np.where(np.isin(np.arange(len(known)), asked), "validation", "train")
        made.append(replace(prepared, records=known.assign(split=split)))
    return made


def score(name: str, plan: Plan, parts: list[Prepared], folder: Path) -> list[Row]:
    """Train once a fold, and score the answers for all images together.

    Args:
        name: of the way; where its files are kept below ``folder``.
        plan: what is trained.
        parts: as ``folds`` gives them.
        folder: where the runs go.
    """
    truth, plain, flipped = [], [], []
    for number, part in enumerate(parts):
        place = folder / name.replace(" ", "_").replace(",", "") / str(number)
        if name.startswith("frozen"):
            torch.manual_seed(0)
            trained = fit_head(plan.classifier(part), part, place)
        else:
            trained = plan.train(part, place)
        rows = part.split("validation")
        model = trained.model("last")
        pixels = np.stack([np.asarray(Image.open(part.folder / file)) for file in rows["file"]])
        truth.append(rows["label"].to_numpy())
        for found, asked in ((plain, model), (flipped, MeanOverFlips(model, ("horizontal", "vertical")))):
            found.append(
                np.concatenate([asked.predict_pixels(some).probabilities for some in np.array_split(pixels, 8)])
            )
    return [
        row
        for way, found in ((name, plain), (f"{name}, mean over flips", flipped))
        for row in _rows(way, np.concatenate(truth), np.concatenate(found))
    ]


def _rows(way: str, truth: np.ndarray, probabilities: np.ndarray) -> list[Row]:
    if probabilities.shape[1] == 2:
        return [figure("default_plans", way, "auroc", roc_auc_score(truth, probabilities[:, 1]))]
    made = []
    expected = (probabilities @ np.arange(probabilities.shape[1])).round().astype(int)
    for decided, by in ((probabilities.argmax(axis=1), ""), (expected, "_by_expected_grade")):
        kappa = cohen_kappa_score(truth, decided, weights="quadratic")
        made.append(figure("default_plans", way, f"kappa{by}", kappa))
        made.append(figure("default_plans", way, f"macro_f1{by}", f1_score(truth, decided, average="macro")))
    return made


if __name__ == "__main__":
    run(main)
