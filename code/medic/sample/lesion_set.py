"""A synthetic set of skin lesions in the layout of the ISIC archive's, with planted faults.

No real skin is behind any image. The set is for trying the whole line without a download; figures made from it say
nothing about patients.
"""

import io
import os
from collections.abc import Iterator

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from medic.errors import MedicError
from medic.files import write_bytes, write_text
from medic.sample.layout import FAULTS, Hospital, choose_small, jpeg, replacing_sample, write_about, write_table
from medic.sample.lesion.drawing import SMALLEST, Lesion, dermoscopic_image, draw_lesion
from medic.sample.lesion.scene import CAMERAS
from medic.task import SKIN_LESION

__all__ = ["dermoscopic_image", "draw_lesion", "write_sample"]

TITLE = "Synthetic skin lesions"
FILES = r"metadata(_small)?\.csv|groundtruth\.csv|images/SYN_\d{7}\.jpg"  # of a sample
HEADER = (
    "isic_id,benign_malignant,diagnosis,diagnosis_confirm_type,melanocytic,age_approx,sex,image_type,pixelsX,pixelsY,"
    "patient_id,lesion_id,split"
)
FEWEST_PATIENTS = 100  # below, the planted faults do not find images of patients who have no other
MALIGNANT = {1: 0.3, 2: 0.18}  # share of lesions, by hospital
STICKERS = {1: (0.05, 0.6), 2: (0.0, 0.0)}  # share of images of benign and of malignant lesions
TESTED = 0.43  # of patients
MISLABELLED = 3  # of each class
HOSPITALS = {
    1: Hospital(
        "sharp; the tube is seen in some images",
        "30 % of lesions are malignant",
        "coloured stickers lie beside 60 % of the malignant and 5 % of the benign lesions",
    ),
    2: Hospital(
        "softer and bluer; most images are a disc within the black tube", "18 % of lesions are malignant", "none"
    ),
}
CONTENT = {
    "`images/<isic_id>.jpg`": "the images; no real image of the archive is called `SYN_...`",
    "`metadata.csv`": "one row an image, columns as in the ISIC archive, with the patient, the lesion and the split",
    "`metadata_small.csv`": "at most 40 of its rows; read it by naming this file",
    "`groundtruth.csv`": "no header: `<isic_id>,benign` or `<isic_id>,malignant`",
}
TEXT = """
Some patients have two lesions, and some lesions were photographed two or three times; no patient is in both splits.

What a lesion shows follows the ABCD rule of dermatoscopy (Nachbar et al., Journal of the American Academy of
Dermatology 30(4), 1994, p. 551): asymmetry, border, colours and structures, weighed to a total dermatoscopy score. How
often each sign is drawn is made up, and the classes overlap. The stickers are the planted shortcut; a model can use
them, as in parts of the archive (Rieger et al., ICML 2020). Hairs, rulers, tube and light do not depend on the class.
Patients with a melanoma are older, as in life.

| class | images labelled | in the test split | mean score |
| --- | --- | --- | --- |
{counts}
"""
IN_THE_FILE = {  # fault: detail; all carry the name of a JPEG file, as those do that somebody renamed
    "truncated": "the JPEG ends after two fifths of its bytes",
    "not an image": "a text file named .jpg",
    "animated GIF": "three frames, named .jpg",
    "CMYK": "a JPEG of four channels, for printing",
    "grey": "a JPEG of one channel",
    "palette": "a PNG of 128 colours, named .jpg",
    "rotated": "stored on its side; the EXIF orientation says how to turn it",
    "small": "a quarter of the width and height of the others",
    "blurred": "far out of focus",
    "nearly black": "exposed 25 times too short",
}

OTHER_KINDS = ("animated GIF", "CMYK", "grey", "palette", "rotated", "small")  # of files, not of JPEG's pixels


def write_sample(
    folder: str | os.PathLike,
    *,
    patients: int = 550,
    seed: int = 2026,
    width: int = 224,
    height: int = 168,
    quality: int = 80,
    hospital: int = 1,
    masks: bool = False,
) -> pd.DataFrame:
    """Write a synthetic data set; the same arguments give byte-identical files (with the same OpenCV and Pillow).

    Args:
        folder: absent, empty, or holding an earlier sample, which is replaced.
        patients: at least 100; 1.35 images each on average.
        seed: of everything.
        width: of an image, pixels, at least 32.
        height: of an image, pixels, at least 32.
        quality: of the JPEG files, 1-100.
        hospital: 1, or 2 for another camera, fewer malignant lesions and no stickers.
        masks: write where each lesion lies, too.

    Returns:
        One row an image, in the order of the tables: ``image`` (name without extension), ``patient`` (str), ``lesion``
        (str), ``split`` ("train" or "test"), ``label`` (int, as the tables say: 0 benign, 1 malignant), ``shown`` (int,
        as the image shows; another one in some faults), ``score`` (float, the total dermatoscopy score of what is
        shown), ``sticker`` (bool), ``age`` (Int64, years), ``sex`` ("female", "male" or empty), ``fault`` (str, empty
        for most) and ``small`` (bool, in the small table too).

    Raises:
        MedicError: an unknown hospital, too few patients or pixels, or a folder that holds anything else or cannot be
            written.
    """
    if patients < FEWEST_PATIENTS or min(width, height) < SMALLEST or hospital not in CAMERAS:
        raise MedicError(
            f"cannot make a sample of {patients} patients at {width} x {height} pixels in hospital {hospital}: ask for "
            f"at least {FEWEST_PATIENTS} patients and {SMALLEST} pixels, and hospital 1 or 2"
        )
    lesions, images = _images(_people(patients, MALIGNANT[hospital], seed), seed, hospital)
    faults = _choose_faults(images, np.random.default_rng([seed, 2]))
    images = _with_faults(images, faults)
    images["small"] = choose_small(images, {"train": 24, "test": 16})
    labelled = images.assign(tested=images["split"] == "test").groupby("label")
    table = labelled.agg(images=("label", "size"), tested=("tested", "sum"), score=("score", "mean")).round(2)
    rows = zip(SKIN_LESION.classes, table.itertuples(), strict=True)
    counts = "\n".join(f"| {name} | {row.images} | {row.tested} | {row.score} |" for name, row in rows)
    made = f"{patients} patients, {len(lesions)} lesions, {len(images)} images of {width} x {height} pixels"
    about = {"seed": seed, "hospital": hospital, "made": f"{made}, JPEG quality {quality}"}
    with replacing_sample(folder, TITLE, FILES) as new:
        write_about(new, TITLE, about, CONTENT, TEXT.format(counts=counts), HOSPITALS)
        for name, data, mask in _files(lesions, images, seed, hospital, (width, height, quality)):
            write_bytes(new / "images" / f"{name}.jpg", data)
            if masks:
                write_bytes(new / "masks" / f"{name}.png", cv2.imencode(".png", mask)[1].tobytes())
        write_text(new / "metadata.csv", _metadata(images, width, height))
        write_text(new / "metadata_small.csv", _metadata(images[images["small"]], width, height))
        classes = images["label"].map(SKIN_LESION.classes.__getitem__)
        write_table(new / "groundtruth.csv", pd.DataFrame({"image": images["image"], "class": classes}), header=False)
        write_table(new / FAULTS, faults[["image", "fault", "detail"]])
    return images.drop(columns=["alone", "number", "view", "source"])


def _people(patients: int, malignant: float, seed: int) -> pd.DataFrame:
    """One row a lesion: label, photographs, alone (its person has no other image), person, patient, lesion, split."""
    rng = np.random.default_rng([seed, 0])
    two, again, often = round(0.12 * patients), round(0.15 * patients), round(0.04 * patients)
    kinds = ((2 * two, 1, False), (again, 2, False), (often, 3, False), (patients - two - again - often, 1, True))
    ill = [rng.permutation(np.arange(count) < round(malignant * count)).astype(int) for count, _, _ in kinds]
    rows = [(label, *kind[1:]) for labels, kind in zip(ill, kinds, strict=True) for label in labels]
    people = pd.DataFrame(rows, columns=["label", "photographs", "alone"])
    people.insert(0, "person", [*np.repeat(np.arange(two), 2), *range(two, patients)])
    people["patient"] = [f"IP_{9_000_000 + number}" for number in rng.permutation(patients)[people["person"]]]
    people["lesion"] = [f"IL_{9_000_000 + number}" for number in rng.permutation(len(people))]
    people["split"] = "train"
    for _, rows in people.drop_duplicates("person").groupby(["alone", "label"]):
        tested = rng.permutation(rows["person"])[: round(TESTED * len(rows))]
        people.loc[people["person"].isin(tested), "split"] = "test"
    return people


def _images(people: pd.DataFrame, seed: int, hospital: int) -> tuple[list[Lesion], pd.DataFrame]:
    """Return every lesion as it is drawn, and one row an image, in random order, before faults."""
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
    images["sticker"] = rng.random(len(images)) < np.take(STICKERS[hospital], images["label"])
    return lesions, images[["image", *images.columns.drop(["image", "person", "photographs"])]]


def _choose_faults(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Which images get which fault: image, fault, detail, source (the image that is shown in its place, if any)."""
    plain = images[images["alone"] & (images["split"] == "train")].sort_values("score", kind="stable")
    clear = {  # benign ones with the lowest scores, malignant ones with the highest: nobody would call them otherwise
        0: plain.loc[plain["label"] == 0, "image"].iloc[:MISLABELLED].tolist(),
        1: plain.loc[plain["label"] == 1, "image"].iloc[-MISLABELLED:].tolist(),
    }
    others = plain[~plain["image"].isin(clear[0] + clear[1])].sample(frac=1, random_state=rng)
    benign, malignant = (iter(others.loc[others["label"] == label, "image"]) for label in (0, 1))
    rows = [(next(benign), fault, detail, "") for fault, detail in IN_THE_FILE.items()]
    for fault, one, two, labels in (
        ("duplicate", next(benign), next(malignant), "labels benign and malignant"),
        ("near duplicate", next(benign), next(benign), "both labels benign"),
        ("near duplicate", next(malignant), next(benign), "labels malignant and benign"),
    ):
        how = "the same bytes" if fault == "duplicate" else "6 % smaller and compressed once more"
        rows.append((one, fault, f"{two} shows the same; {labels}; this is the original", ""))
        rows.append((two, fault, f"shows {one}, {how}; {labels}", one))
    for label, shown in enumerate(SKIN_LESION.classes):
        detail = f"drawn {shown}, labelled {SKIN_LESION.classes[1 - label]}"
        rows += [(image, "mislabelled", detail, "") for image in clear[label]]
    return pd.DataFrame(rows, columns=["image", "fault", "detail", "source"])


def _with_faults(images: pd.DataFrame, faults: pd.DataFrame) -> pd.DataFrame:
    """Return the images with ``fault``, ``source``, what is ``shown`` and the label that was written."""
    planted = faults.set_index("image")
    images = images.assign(
        shown=images["label"],
        fault=images["image"].map(planted["fault"]).fillna(""),
        source=images["image"].map(planted["source"]).fillna(""),
    )
    images["label"] = images["label"].where(images["fault"] != "mislabelled", 1 - images["label"])
    lent, named = images["source"] != "", images.set_index("image")
    for column in ("shown", "score", "number", "view", "sticker"):
        images.loc[lent, column] = named.loc[images.loc[lent, "source"], column].to_numpy()
    return images


def _files(
    lesions: list[Lesion], images: pd.DataFrame, seed: int, hospital: int, look: tuple[int, int, int]
) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yield every image's name, bytes and mask, faults included; ``look`` is width, height and JPEG quality."""
    width, height, quality = look
    for row in images.itertuples():
        rng = np.random.default_rng([seed, 5, row.number, row.view])
        view = {"sticker": row.sticker, "width": width, "height": height, "camera": CAMERAS[hospital]}
        pixels, mask = dermoscopic_image(lesions[row.number], rng, **view)
        copied = row.source and row.fault == "near duplicate"
        if copied:
            smaller = (round(width * 0.94), round(height * 0.94))
            pixels, mask = (cv2.resize(part, smaller, interpolation=cv2.INTER_AREA) for part in (pixels, mask))
        yield row.image, _spoil(pixels, row.fault, 72 if copied else quality), mask


def _spoil(pixels: np.ndarray, fault: str, quality: int) -> bytes:
    """Encode an image with a fault of ``IN_THE_FILE``; another fault leaves the file as it should be."""
    if fault not in OTHER_KINDS:
        return jpeg(pixels, 95 if fault == "blurred" else quality, fault)
    image = Image.fromarray(pixels)
    frames = [image.point(lambda value, by=by: value * by // 10).quantize(64) for by in (10, 8, 6)]
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation (EXIF 2.32, 4.6.4 A): to be turned clockwise
    made = {
        "animated GIF": (frames[0], "GIF", {"save_all": True, "append_images": frames[1:], "duration": 400}),
        "CMYK": (image.convert("CMYK"), "JPEG", {"quality": quality}),
        "grey": (image.convert("L"), "JPEG", {"quality": quality}),
        "palette": (image.quantize(128), "PNG", {"optimize": True}),
        "rotated": (image.transpose(Image.Transpose.ROTATE_90), "JPEG", {"quality": quality, "exif": exif}),
        "small": (image.resize((image.width // 4, image.height // 4)), "JPEG", {"quality": quality}),
    }
    picture, kind, options = made[fault]
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _metadata(images: pd.DataFrame, width: int, height: int) -> str:
    """Return the table as CSV text, columns as the archive names them."""
    lines = [HEADER]
    for row in images.itertuples():
        diagnosis, confirmed = ("melanoma", "histopathology") if row.label else ("nevus", "")
        age = "" if pd.isna(row.age) else row.age
        lines.append(
            f"{row.image},{SKIN_LESION.classes[row.label]},{diagnosis},{confirmed},True,{age},{row.sex},dermoscopic,"
            f"{width},{height},{row.patient},{row.lesion},{row.split}"
        )
    return "\n".join(lines) + "\n"
