"""A synthetic set of skin lesions in the layout of the ISIC archive's, with planted faults."""

import io
from collections.abc import Iterator

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from medic.sample.layout import File, Sample, csv, jpeg
from medic.sample.lesion.drawing import dermoscopic_image, draw_lesion
from medic.sample.lesion.scene import CONSTANTS
from medic.task import SKIN_LESION

MALIGNANT = {1: 0.3, 2: 0.18}  # share of lesions, by hospital
TESTED = 0.43  # of patients
CLASSES = dict(enumerate(SKIN_LESION.classes))
QUALITY = 80  # of the JPEG files
MISLABELLED = 3  # of each class
IN_THE_FILE = CONSTANTS["faults"]  # what is wrong with a file: fault and detail


def cast(patients: int, seed: int, hospital: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make up patients, their lesions and photographs; see ``Sample``.

    The records have ``lesion`` (str), ``shown`` (int, the label of what the image shows), ``score`` (float, the total
    dermatoscopy score of that), ``sticker`` (bool), ``age`` (Int64, years) and ``sex`` ("female", "male" or empty).
    """
    records = photographs(patients, seed, hospital)
    faults = _choose_faults(records, np.random.default_rng([seed, 2]))
    source = records["image"].replace(faults[faults["source"] != ""].set_index("image")["source"])
    seen = records.set_index("image").loc[source, ["label", "score", "sticker"]]
    records[["shown", "score", "sticker"]] = seen.set_axis(records.index)
    wrong = records["image"].isin(faults.loc[faults["fault"] == "mislabelled", "image"])
    records["label"] = records["label"].where(~wrong, 1 - records["label"])
    counts = records.assign(tested=records["split"] == "test", name=records["label"].map(CLASSES)).groupby("name")
    counts = counts.agg(images=("label", "size"), tested=("tested", "sum"), score=("score", "mean")).round(2)
    return records.drop(columns="alone"), faults, counts


def _people(patients: int, malignant: float, seed: int) -> pd.DataFrame:
    """One row a lesion: label, photographs, alone (its person has no other image), person, patient, lesion, split."""
    rng = np.random.default_rng([seed, 0])
    two, again, often = round(0.12 * patients), round(0.15 * patients), round(0.04 * patients)
    count = 2 * two, again, often, patients - two - again - often
    labels = [rng.permutation(np.arange(lesions) < round(malignant * lesions)) for lesions in count]
    people = pd.DataFrame({"label": np.concatenate(labels).astype(int), "photographs": np.repeat((1, 2, 3, 1), count)})
    people["alone"] = np.repeat((False, False, False, True), count)
    people["person"] = [*np.repeat(np.arange(two), 2), *range(two, patients)]
    people["patient"] = [f"IP_{9_000_000 + number}" for number in rng.permutation(patients)[people["person"]]]
    people["lesion"] = [f"IL_{9_000_000 + number}" for number in rng.permutation(len(people))]
    people["split"] = "train"
    for _, rows in people.drop_duplicates("person").groupby(["alone", "label"]):
        tested = rng.permutation(rows["person"])[: round(TESTED * len(rows))]
        people.loc[people["person"].isin(tested), "split"] = "test"
    return people


def photographs(patients: int, seed: int, hospital: int = 1) -> pd.DataFrame:
    """Return one row an image, in random order, before faults; ``drawn`` is what ``dermoscopic_image`` takes of it.

    The columns are those of ``cast``, and ``drawn``: the lesion, the seed of its image (list of int), and whether there
    is a sticker.
    """
    people = _people(patients, MALIGNANT[hospital], seed)
    rng, persons = np.random.default_rng([seed, 1]), people["person"].nunique()
    ill = people.groupby("person")["label"].max().to_numpy()
    years = rng.normal(np.where(ill == 1, 57, 42), 14)
    years = pd.Series((5 * np.rint(years / 5)).clip(15, 85)).astype("Int64").mask(rng.random(persons) < 0.08)
    sexes = rng.choice(["female", "male", ""], persons, p=(0.48, 0.46, 0.06))
    lesions = [
        draw_lesion(bool(row.label), seed + row.person, np.random.default_rng([seed, 4, number]))
        for number, row in enumerate(people.itertuples())
    ]
    people["age"], people["sex"] = years[people["person"]].array, sexes[people["person"]]
    people["score"] = [lesion.score for lesion in lesions]
    images = people.assign(number=range(len(people))).loc[people.index.repeat(people["photographs"])]
    images["view"] = images.groupby("number").cumcount()
    images = images.sample(frac=1, random_state=rng).reset_index(drop=True)
    images["image"] = [f"SYN_{index:07d}" for index in range(1, len(images) + 1)]
    stickers = np.array(CONSTANTS["hospital"][hospital - 1]["stickers"])
    images["sticker"] = rng.random(len(images)) < stickers[images["label"]]
    seen = images[["number", "view", "sticker"]].itertuples(index=False)
    images["drawn"] = [(lesions[number], [seed, 5, number, view], sticker) for number, view, sticker in seen]
    return images.drop(columns=["person", "photographs", "number", "view"])


def photograph(drawn: tuple, camera: int = 1, sticker: bool = True, size: tuple[int, int] = (224, 168)) -> bytes:
    """Take one image of ``photographs`` with the camera of hospital 1 or 2, as JPEG; without a sticker where False."""
    lesion, key, beside = drawn
    look = {"size": size, "hospital": camera, "sticker": beside and sticker}
    return jpeg(dermoscopic_image(lesion, np.random.default_rng(key), **look)[0], QUALITY)


def _choose_faults(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Which images get which fault: image, fault, detail, source (the image that is shown in its place, if any)."""
    plain = images[images["alone"] & (images["split"] == "train")].sort_values("score", kind="stable")
    clear = {  # benign ones with the lowest scores, malignant ones with the highest: nobody would call them otherwise
        0: plain.loc[plain["label"] == 0, "image"].iloc[:MISLABELLED].tolist(),
        1: plain.loc[plain["label"] == 1, "image"].iloc[-MISLABELLED:].tolist(),
    }
    others = plain[~plain["image"].isin(clear[0] + clear[1])].sample(frac=1, random_state=rng)
    benign, malignant = (iter(others.loc[others["label"] == label, "image"]) for label in (0, 1))
    rows = [(next(benign), fault, detail) for fault, detail in IN_THE_FILE.items()]
    for fault, one, two, labels in (
        ("duplicate", next(benign), next(malignant), "labels benign and malignant"),
        ("near duplicate", next(benign), next(benign), "both labels benign"),
        ("near duplicate", next(malignant), next(benign), "labels malignant and benign"),
    ):
        how = "the same bytes" if fault == "duplicate" else "6 % smaller and compressed once more"
        rows.append((one, fault, f"{two} shows the same; {labels}; this is the original"))
        rows.append((two, fault, f"shows {one}, {how}; {labels}", one))
    for label, shown in CLASSES.items():
        detail = f"drawn {shown}, labelled {CLASSES[1 - label]}"
        rows += [(image, "mislabelled", detail) for image in clear[label]]
    return pd.DataFrame(rows, columns=["image", "fault", "detail", "source"]).fillna("")


def draw(records: pd.DataFrame, size: tuple[int, int], seed: int, hospital: int) -> Iterator[File]:
    """Draw each image; a mask is named ``<image>_mask``."""
    for row in records.itertuples():
        lesion, key, sticker = row.drawn
        look = {"size": size, "hospital": hospital, "sticker": sticker}
        pixels, mask = dermoscopic_image(lesion, np.random.default_rng(key), **look)
        if smaller_copy := row.source and row.fault == "near duplicate":
            smaller = (round(size[0] * 0.94), round(size[1] * 0.94))
            pixels, mask = (cv2.resize(part, smaller, interpolation=cv2.INTER_AREA) for part in (pixels, mask))
        data = _encode(pixels, row.fault, 72 if smaller_copy else QUALITY)
        yield f"images/{row.image}.jpg", data, {f"{row.image}_mask": mask}


def _encode(pixels: np.ndarray, fault: str, quality: int) -> bytes:
    """Encode an image with a fault of ``IN_THE_FILE``; another fault leaves the file as it should be."""
    image, exif, buffer = Image.fromarray(pixels), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # orientation (EXIF 2.32, 4.6.4 A): to be turned clockwise
    small = image.width // 4, image.height // 4
    if fault == "animated GIF":
        first, *others = (image.point(lambda value, by=by: value * by // 10).quantize(64) for by in (10, 8, 6))
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=400)
    elif fault == "palette":
        image.quantize(128).save(buffer, "PNG", optimize=True)
    elif fault == "rotated":
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=quality, exif=exif)
    elif fault in ("CMYK", "grey", "small"):
        changed = image.resize(small) if fault == "small" else image.convert({"CMYK": "CMYK", "grey": "L"}[fault])
        changed.save(buffer, "JPEG", quality=quality)
    else:
        return jpeg(pixels, 95 if fault == "blurred" else quality, fault)
    return buffer.getvalue()


def tables(records: pd.DataFrame, twin: str, size: tuple[int, int]) -> dict[str, str]:
    """Return the archive's table, and that of labels in the layout of challenges."""
    malignant = records["label"] == 1
    columns = {
        "isic_id": records["image"],
        "benign_malignant": records["label"].map(CLASSES),
        "diagnosis": np.where(malignant, "melanoma", "nevus"),
        "diagnosis_confirm_type": np.where(malignant, "histopathology", ""),
        "melanocytic": True,
        "age_approx": records["age"],
        "sex": records["sex"],
        "image_type": "dermoscopic",
        "pixelsX": size[0],
        "pixelsY": size[1],
        "patient_id": records["patient"],
        "lesion_id": records["lesion"],
        "split": records["split"],
    }
    metadata = pd.DataFrame(columns)
    labels = {} if twin else {"groundtruth.csv": csv(metadata[["isic_id", "benign_malignant"]], header=False)}
    return {f"metadata{twin}.csv": csv(metadata)} | labels


FILES = r"metadata(_small)?\.csv|groundtruth\.csv|images/SYN_\d{7}\.jpg"
SAMPLE = Sample("skin_lesion.md.j2", FILES, cast, draw, tables, patients=(550, 100), size=(224, 43))
