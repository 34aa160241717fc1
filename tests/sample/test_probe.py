"""A linear probe on frozen ImageNet features finds each drawn task learnable, and none trivial."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, recall_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medic.data.readers import DATA_SETS
from medic.modeling.backbones import backbone
from medic.sample import SAMPLES
from medic.task import FINDINGS

COMMITTED = Path(__file__).parents[2] / "sample_data"

pytestmark = pytest.mark.slow


def read(name: str, folder: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return the records of a set without its planted faults, their features, and which are to test.

    Frozen features of EfficientNet-Lite0: the mean of block 4, and mean and maximum of the head's map.
    """
    records, store = DATA_SETS[name].read(folder)
    faulty = pd.read_csv(folder / "planted_faults.csv")["image"].map(lambda image: Path(image).stem)
    records = records[~records["image"].map(lambda image: Path(image).stem).isin(faulty)]
    network = backbone("efficientnet_lite0", outputs=1, weights="imagenet").eval()
    preprocessing, rows = replace(DATA_SETS[name].preprocessing, size=224), []
    for image in records["image"]:
        pixels = preprocessing.pixels(store.read(image)).astype(np.float32) / 127.5 - 1
        with torch.inference_mode():
            head, (block,) = network.forward_intermediates(
                torch.from_numpy(pixels.transpose(2, 0, 1)[None]), indices=[3]
            )
        rows.append(torch.cat([block.mean((2, 3)), head.mean((2, 3)), head.amax((2, 3))], 1))
    return records, torch.cat(rows).numpy(), (records["split"] == "test").to_numpy()


def linear_probe(images: np.ndarray, labels: np.ndarray):
    probe = LogisticRegression(class_weight="balanced", C=0.003, max_iter=2000)
    return make_pipeline(StandardScaler(), probe).fit(images, labels)


def test_retinopathy_is_graded_well_but_not_perfectly():
    records, images, test = read("retinopathy", COMMITTED / "retinopathy")
    grades = records["label"].to_numpy(int)
    answers = linear_probe(images[~test], grades[~test]).predict(images[test])
    assert 0.75 <= cohen_kappa_score(grades[test], answers, weights="quadratic") <= 0.95
    assert recall_score(grades[test], answers, average=None).min() > 0.2


def test_chest_findings_are_found_but_not_all_of_them():
    records, images, test = read("chest_xray", COMMITTED / "chest_xray")
    areas = {}
    for name, shown in records[["label", *FINDINGS]].astype(int).items():
        if shown[test].sum() >= 12:
            probe = linear_probe(images[~test], shown[~test])
            areas[name] = roc_auc_score(shown[test], probe.decision_function(images[test]))
    assert len(areas) >= 11
    assert 0.78 <= areas.pop("label") <= 0.92
    assert np.median(list(areas.values())) > 0.75


def test_lesions_are_told_apart_and_worse_in_the_hospital_without_stickers(tmp_path):
    SAMPLES["skin_lesion"].write(tmp_path, patients=300, hospital=2)
    records, images, test = read("skin_lesion", COMMITTED / "skin_lesion")
    elsewhere, others, _ = read("skin_lesion", tmp_path)
    probe, malignant = linear_probe(images[~test], records["label"][~test]), records["label"][test]
    here = roc_auc_score(malignant, probe.decision_function(images[test]))
    assert 0.78 <= here <= 0.92
    assert roc_auc_score(elsewhere["label"], probe.decision_function(others)) < here - 0.08
