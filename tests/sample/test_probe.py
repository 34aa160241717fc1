"""A linear probe on frozen ImageNet features finds each drawn task learnable, and none trivial."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, recall_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medic.modeling.backbones import backbone
from medic.sample import SAMPLES as DRAWN

SAMPLES = Path(__file__).parents[2] / "sample_data"

pytestmark = pytest.mark.slow


def features(images: list[bytes], side: int = 224) -> np.ndarray:
    """Frozen EfficientNet-Lite0 features of image files, cut to what is not black and padded to a square: float (n, d).

    The mean of block 4, and mean and maximum of the head's map.
    """
    network = backbone("efficientnet_lite0", outputs=1, weights="imagenet").eval()
    rows = []
    with torch.inference_mode():
        for data in images:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            image = image.crop(image.point(lambda value: 255 * (value > 12)).getbbox())
            square = Image.new("RGB", (max(image.size),) * 2)
            square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
            pixels = np.asarray(square.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
            map_, blocks = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()), []
            map_ = network.bn1(network.conv_stem(map_))
            for block in network.blocks:
                map_ = block(map_)
                blocks.append(map_.mean((2, 3)))
            map_ = network.bn2(network.conv_head(map_))
            rows.append(torch.cat([blocks[4], map_.mean((2, 3)), map_.amax((2, 3))], 1))
    return torch.cat(rows).numpy()


def linear_probe(images: np.ndarray, labels: np.ndarray, C: float = 0.003):
    """Fit a logistic regression on features."""
    probe = LogisticRegression(class_weight="balanced", C=C, max_iter=2000)
    return make_pipeline(StandardScaler(), probe).fit(images, labels)


def retinopathy(split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = SAMPLES / "retinopathy"
    names = pd.read_csv(folder / f"{split}_img.csv", header=None, dtype=str)[0]
    grades = pd.read_csv(folder / f"{split}_label.csv", header=None)[0].to_numpy()
    faulty = pd.read_csv(folder / "planted_faults.csv")["image"]
    sound = ~names.isin(faulty)
    return features([(folder / "images" / f"{name}.jpeg").read_bytes() for name in names[sound]]), grades[sound]


def test_retinopathy_is_graded_well_but_not_perfectly():
    probe = linear_probe(*retinopathy("train"))
    images, grades = retinopathy("test")
    answers = probe.predict(images)
    assert 0.75 <= cohen_kappa_score(grades, answers, weights="quadratic") <= 0.95
    assert recall_score(grades, answers, average=None).min() > 0.2


def chests(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    rows = pd.read_csv(folder / "Data_Entry_2017.csv", dtype=str, index_col=False)
    rows = rows[~rows["Image Index"].isin(pd.read_csv(folder / "planted_faults.csv")["image"])]
    with zipfile.ZipFile(folder / "images.zip") as archive:
        member = {Path(name).name: name for name in archive.namelist()}
        images = features([archive.read(member[name]) for name in rows["Image Index"]])
    rows["test"] = rows["Image Index"].isin((folder / "test_list.txt").read_text().split())
    return rows, images


def test_chest_findings_are_found_but_not_all_of_them():
    rows, images = chests(SAMPLES / "chest_xray")
    shown, test = rows["Finding Labels"].str.get_dummies("|"), rows["test"].to_numpy()
    shown["any"] = 1 - shown.pop("No Finding")
    areas = {
        name: roc_auc_score(
            shown.loc[test, name], linear_probe(images[~test], shown.loc[~test, name]).decision_function(images[test])
        )
        for name in shown.columns[shown[test].sum() >= 12]
    }
    assert len(areas) >= 11
    assert 0.78 <= areas.pop("any") <= 0.92
    assert np.median(list(areas.values())) > 0.75


def lesions(folder: Path, split: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    rows = pd.read_csv(folder / "metadata.csv")
    rows = rows[~rows["isic_id"].isin(pd.read_csv(folder / "planted_faults.csv")["image"])]
    rows = rows if split is None else rows[rows["split"] == split]
    images = features([(folder / "images" / f"{name}.jpg").read_bytes() for name in rows["isic_id"]])
    return images, (rows["benign_malignant"] == "malignant").to_numpy()


def test_lesions_are_told_apart_and_worse_in_the_hospital_without_stickers(tmp_path):
    probe = linear_probe(*lesions(SAMPLES / "skin_lesion", "train"))
    DRAWN["skin_lesion"].write(tmp_path, patients=300, hospital=2)

    def area(images: np.ndarray, malignant: np.ndarray) -> float:
        return roc_auc_score(malignant, probe.decision_function(images))

    here, there = area(*lesions(SAMPLES / "skin_lesion", "test")), area(*lesions(tmp_path))
    assert 0.78 <= here <= 0.92
    assert there < here - 0.08
