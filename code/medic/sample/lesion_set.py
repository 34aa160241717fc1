"""A synthetic set of skin lesions in the layout of the ISIC archive's, with planted faults.

No real skin is behind any image. The set is for trying the whole line without a download; figures made from it say
nothing about patients.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.stores import SYNTHETIC_MARK
from medic.errors import MedicError
from medic.files import write_bytes, write_text
from medic.sample.layout import earlier_files
from medic.sample.lesion.drawing import SMALLEST, Lesion, dermoscopic_image
from medic.sample.lesion.files import IN_THE_FILE, near_duplicate, spoil
from medic.sample.lesion.nuisances import sample_nuisances
from medic.sample.lesion.signs import BENIGN_BELOW, MALIGNANT_ABOVE, sample_signs
from medic.sample.lesion.skin import sample_skin
from medic.task import SKIN_LESION

__all__ = ["dermoscopic_image", "sample_signs", "sample_skin", "write_sample"]

TITLE = "# Synthetic skin lesions"
TABLES = ("metadata.csv", "groundtruth.csv", "planted_faults.csv")
IMAGE_FILE = re.compile(r"images/SYN_\d{7}\.jpg")
HEADER = (
    "isic_id,benign_malignant,diagnosis,diagnosis_confirm_type,melanocytic,age_approx,sex,image_type,pixelsX,pixelsY,"
    "patient_id,lesion_id"
)
FEWEST_PATIENTS = 60  # below, the planted faults do not find images of patients who have no other
MALIGNANT = 0.3  # of lesions
STICKERS = 0.12  # of images of benign lesions; none of malignant ones: the planted confounder
MISLABELLED = 3  # of each class

ABOUT = """{title}

**Synthetic.** Every image here was drawn by a program from random numbers. No real patient, no real skin, and no
clinical meaning: a result from this folder says that the software works, nothing about patients.

Made by `medic sample` (in Python: `medic.sample.lesion_set.write_sample`) with seed {seed}: {patients} patients,
{lesions} lesions, {images} images of {width} x {height} pixels, JPEG quality {quality}. The same seed gives the same
files.

| file | content |
| --- | --- |
| `images/<isic_id>.jpg` | the images; no real image of the archive is called `SYN_...` |
| `metadata.csv` | one row an image, columns as in the ISIC archive, with the patient and the lesion |
| `groundtruth.csv` | no header: `<isic_id>,benign` or `<isic_id>,malignant` |
| `planted_faults.csv` | the faults that were put in on purpose: `image,fault,detail` |

Some patients have two lesions, and some lesions were photographed two or three times, so a fair split is by patient.

What a lesion shows follows the ABCD rule of dermatoscopy (Nachbar et al., Journal of the American Academy of
Dermatology 30(4), 1994, p. 551): asymmetry, border, colours and structures, weighed to a total dermatoscopy score. How
often each sign is drawn is made up, and the classes overlap:

| class | images drawn | mean score | score below 4.75 | score above 5.45 | images labelled |
| --- | --- | --- | --- | --- | --- |
{counts}

**Planted confounder.** {stickers} images of benign lesions show coloured stickers, and none of a malignant one does, as
in parts of the archive (Rieger et al., ICML 2020). A model can use them; see whether yours does. Hairs, rulers, frames,
bubbles and light do not depend on the class, nor does the size. Patients with a melanoma are older, as in life.
"""


def write_sample(
    folder: str | os.PathLike,
    *,
    patients: int = 150,
    seed: int = 2026,
    width: int = 256,
    height: int = 192,
    quality: int = 84,
) -> pd.DataFrame:
    """Write a synthetic data set; the same arguments give byte-identical files (with the same OpenCV and Pillow).

    Args:
        folder: absent, empty, or holding an earlier sample, which is replaced.
        patients: at least 60; 1.35 images each on average.
        seed: of everything.
        width: of an image, pixels, at least 32.
        height: of an image, pixels, at least 32.
        quality: of the JPEG files, 1-100.

    Returns:
        One row an image, in the order of the tables: ``image`` (name without extension), ``patient`` (str), ``lesion``
        (str), ``label`` (int, as the tables say: 0 benign, 1 malignant), ``shown`` (int, as the image shows; another
        one in some faults), ``score`` (float, the total dermatoscopy score of what is shown), ``stickers`` (int),
        ``age`` (Int64, years), ``sex`` ("female", "male" or empty) and ``fault`` (str, empty for most).

    Raises:
        MedicError: too few patients or pixels, or a folder that holds anything else or cannot be written.
    """
    if patients < FEWEST_PATIENTS or min(width, height) < SMALLEST:
        raise MedicError(
            f"cannot make a sample of {patients} patients at {width} x {height} pixels with every planted fault: "
            f"ask for at least {FEWEST_PATIENTS} patients and {SMALLEST} pixels"
        )
    folder = Path(folder)
    earlier = earlier_files(folder, SYNTHETIC_MARK, TITLE, lambda name: name in TABLES or IMAGE_FILE.fullmatch(name))
    people = _people(patients, np.random.default_rng([seed, 0]))
    lesions, images = _images(people, seed)
    faults = _choose_faults(images, np.random.default_rng([seed, 2]))
    images = _with_faults(images, faults)

    # the mark comes first: it shows that the folder is ours, so that an interrupted run can be repeated
    about = {"seed": seed, "patients": patients, "width": width, "height": height, "quality": quality}
    about |= {"lesions": len(lesions), "images": len(images), "stickers": int((images["stickers"] > 0).sum())}
    write_text(folder / SYNTHETIC_MARK, ABOUT.format(title=TITLE, counts=_counts(images), **about))
    written = {folder / name for name in (SYNTHETIC_MARK, *TABLES)}
    for name, data in _files(lesions, images, seed, (width, height, quality)):
        write_bytes(folder / "images" / f"{name}.jpg", data)
        written.add(folder / "images" / f"{name}.jpg")
    write_text(folder / "metadata.csv", _metadata(images, width, height))
    labels = images["label"].map(SKIN_LESION.classes.__getitem__)
    write_text(folder / "groundtruth.csv", "".join(f"{row}\n" for row in images["image"] + "," + labels))
    listed = faults[["image", "fault", "detail"]]
    write_text(folder / "planted_faults.csv", listed.to_csv(index=False, lineterminator="\n"))
    for path in earlier - written:
        path.unlink()
    columns = ["image", "patient", "lesion", "label", "shown", "score", "stickers", "age", "sex", "fault"]
    return images[columns]


def _people(patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row a lesion: person (number), patient, lesion, label, photographs, alone (the person's only image)."""
    two, again, often = round(0.12 * patients), round(0.15 * patients), round(0.04 * patients)
    once = patients - two - again - often
    kinds = ((2 * two, 1, False), (again, 2, False), (often, 3, False), (once, 1, True))
    label, photographs, alone = [], [], []
    for count, times, only in kinds:
        malignant = np.arange(count) < round(MALIGNANT * count)
        label += rng.permutation(malignant.astype(int)).tolist()
        photographs += [times] * count
        alone += [only] * count
    person = [*np.repeat(np.arange(two), 2), *range(two, patients)]
    people = pd.DataFrame({"person": person, "label": label, "photographs": photographs, "alone": alone})
    names = 9_000_000 + rng.permutation(patients)
    people["patient"] = [f"IP_{names[index]}" for index in people["person"]]
    people["lesion"] = [f"IL_{9_000_000 + number}" for number in rng.permutation(len(people))]
    return people


def _images(people: pd.DataFrame, seed: int) -> tuple[list[Lesion], pd.DataFrame]:
    """Every lesion as it is drawn, and one row an image, in random order, before faults."""
    rng = np.random.default_rng([seed, 1])
    persons = people["person"].nunique()
    ill = people.groupby("person")["label"].max().to_numpy()
    skins = [sample_skin(np.random.default_rng([seed, 3, person])) for person in range(persons)]
    years = np.where(ill == 1, rng.normal(57, 13, persons), rng.normal(42, 15, persons))
    years = pd.Series((5 * np.rint(years / 5)).clip(15, 85)).astype("Int64").mask(rng.random(persons) < 0.08)
    sexes = rng.choice(["female", "male", ""], persons, p=(0.48, 0.46, 0.06))
    lesions, rows = [], []
    for number, row in enumerate(people.itertuples()):
        own = np.random.default_rng([seed, 4, number])
        signs = sample_signs(bool(row.label), own)
        lesions.append(Lesion(signs, skins[row.person], int(own.integers(2**31))))
        known = {"patient": row.patient, "lesion": row.lesion, "label": row.label, "alone": row.alone}
        known |= {"age": years[row.person], "sex": sexes[row.person], "score": signs.score, "number": number}
        rows += [{**known, "view": view} for view in range(row.photographs)]
    images = pd.DataFrame(rows).sample(frac=1, random_state=rng).reset_index(drop=True)
    images["age"] = images["age"].astype("Int64")
    images["image"] = [f"SYN_{index:07d}" for index in range(1, len(images) + 1)]
    benign = images.index[images["label"] == 0]
    images["stickers"] = 0
    beside = rng.permutation(benign)[: round(STICKERS * len(benign))]
    images.loc[beside, "stickers"] = rng.choice([1, 1, 1, 2], len(beside))
    return lesions, images


def _choose_faults(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Which images get which fault: image, fault, detail, source (the image that is shown in its place, if any)."""
    plain = images[images["alone"] & (images["stickers"] == 0)].sort_values("score", kind="stable")
    clear = {  # benign ones with the lowest scores, malignant ones with the highest: nobody would call them otherwise
        0: plain.loc[plain["label"] == 0, "image"].iloc[:MISLABELLED].tolist(),
        1: plain.loc[plain["label"] == 1, "image"].iloc[-MISLABELLED:].tolist(),
    }
    others = plain[~plain["image"].isin(clear[0] + clear[1])].sample(frac=1, random_state=rng)
    typical = others[(others["score"] > MALIGNANT_ABOVE) == (others["label"] == 1)]
    benign, malignant = (iter(typical.loc[typical["label"] == label, "image"]) for label in (0, 1))
    rows = [(next(malignant if fault == "rotated" else benign), fault, IN_THE_FILE[fault], "") for fault in IN_THE_FILE]
    one, two = next(benign), next(malignant)
    rows += [
        (one, "duplicate", f"same bytes as {two}; labels benign and malignant; this is the original", ""),
        (two, "duplicate", f"same bytes as {one}; labels malignant and benign", one),
    ]
    smaller = "6 % smaller and compressed once more"
    one, two = next(benign), next(benign)
    rows += [
        (one, "near duplicate", f"{two} shows the same; both labels benign; this is the original", ""),
        (two, "near duplicate", f"shows {one}, {smaller}; both labels benign", one),
    ]
    one, two = next(malignant), next(benign)
    rows += [
        (one, "near duplicate", f"{two} shows the same; labels malignant and benign; this is the original", ""),
        (two, "near duplicate", f"shows {one}, {smaller}; labels benign and malignant", one),
    ]
    for label, (shown, written) in enumerate((SKIN_LESION.classes, SKIN_LESION.classes[::-1])):
        detail = f"drawn {shown}, labelled {written}"
        rows += [(image, "mislabelled", detail, "") for image in clear[label]]
    return pd.DataFrame(rows, columns=["image", "fault", "detail", "source"])


def _with_faults(images: pd.DataFrame, faults: pd.DataFrame) -> pd.DataFrame:
    """The images with ``fault``, ``source``, what is ``shown`` and the label that was written."""
    planted = faults.set_index("image")
    images = images.assign(
        fault=images["image"].map(planted["fault"]).fillna(""), source=images["image"].map(planted["source"]).fillna("")
    )
    images["shown"] = images["label"]
    wrong = images["fault"] == "mislabelled"
    images.loc[wrong, "label"] = 1 - images.loc[wrong, "label"]
    named = images.set_index("image")
    lent = images["source"] != ""
    for column in ("shown", "score", "number", "view"):
        images.loc[lent, column] = named.loc[images.loc[lent, "source"], column].to_numpy()
    return images


def _files(
    lesions: list[Lesion], images: pd.DataFrame, seed: int, look: tuple[int, int, int]
) -> Iterator[tuple[str, bytes]]:
    """Every image's name and bytes, faults included; ``look`` is width, height and JPEG quality."""
    width, height, quality = look
    lent = dict.fromkeys(images.loc[images["source"] != "", "source"], b"")
    for row in images[images["source"] == ""].itertuples():
        lesion, rng = lesions[row.number], np.random.default_rng([seed, 5, row.number, row.view])
        nuisances = sample_nuisances(rng, lesion.skin, stickers=row.stickers)
        pixels = dermoscopic_image(lesion, rng, nuisances=nuisances, width=width, height=height)
        data = spoil(pixels, row.fault, quality)
        if row.image in lent:
            lent[row.image] = data
        yield row.image, data
    for row in images[images["source"] != ""].itertuples():
        data = lent[row.source]
        yield row.image, near_duplicate(data) if row.fault == "near duplicate" else data


def _metadata(images: pd.DataFrame, width: int, height: int) -> str:
    """The table of all images as CSV text, columns as the archive names them."""
    lines = [HEADER]
    for row in images.itertuples():
        name = SKIN_LESION.classes[row.label]
        diagnosis, confirmed = ("melanoma", "histopathology") if row.label else ("nevus", "")
        age = "" if pd.isna(row.age) else row.age
        lines.append(
            f"{row.image},{name},{diagnosis},{confirmed},True,{age},{row.sex},dermoscopic,{width},{height},"
            f"{row.patient},{row.lesion}"
        )
    return "\n".join(lines) + "\n"


def _counts(images: pd.DataFrame) -> str:
    """The rows of the table of classes in ``SYNTHETIC.md``."""
    rows = []
    for label, name in enumerate(SKIN_LESION.classes):
        score = images.loc[images["shown"] == label, "score"]
        below, above = (score < BENIGN_BELOW).mean(), (score > MALIGNANT_ABOVE).mean()
        labelled = (images["label"] == label).sum()
        rows.append(f"| {name} | {len(score)} | {score.mean():.2f} | {below:.0%} | {above:.0%} | {labelled} |")
    return "\n".join(rows)
