"""Mistakes that others have made with such data, committed on purpose on the data at hand, and what each one costs.

Those with the images and their labels are here; those in scoring a model are in ``scoring_mistakes``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd

from medic.data.images.crop import CROPS
from medic.data.images.decode import decode
from medic.data.prepare import Prepared
from medic.data.records import originals
from medic.data.split import split_by_patient
from medic.data.stores import Store
from medic.errors import MedicError
from medic.modeling.metrics import confusion_matrix, quadratic_weighted_kappa
from medic.modeling.training.run import Run
from medic.predict import predict
from medic.task import Task

TOLERANCE = 7
"""Published crops call a pixel dark that is not above this (of 255), in one channel."""

THUMBNAIL = 24
"""Side, in pixels, of the pictures that the memorising classifier of `eyes_on_both_sides` compares."""

KAPPA = "quadratic kappa"


@dataclass(frozen=True)
class Mistake:
    """What a mistake does to a figure.

    Attributes:
        name: what is done wrongly.
        measured: the figure, and of what.
        right: its value when the thing is done properly.
        wrong: its value with the mistake.
        sentence: the same for a person, with the figures behind it.
        figures: all that was measured, by name.
        example: the name of an image that shows it well, where there is one.
    """

    name: str
    measured: str
    right: float
    wrong: float
    sentence: str
    figures: dict[str, float] = field(default_factory=dict)
    example: str | None = None

    @property
    def cost(self) -> float:
        """``wrong`` less ``right``; above 0 where the mistake flatters."""
        return self.wrong - self.right

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.name[0].upper()}{self.name[1:]}</b><br>{self.measured}: {self.right:.2f} when done properly, "
            f"<b>{self.wrong:.2f}</b> with the mistake ({self.cost:+.2f}).<br>{self.sentence}"
        )


def table(mistakes: Sequence[Mistake]) -> pd.DataFrame:
    """One row a mistake: ``mistake`` (the index), ``figure``, ``right``, ``wrong``, ``cost``."""
    rows = [(m.name, m.measured, m.right, m.wrong, m.cost) for m in mistakes]
    return pd.DataFrame(rows, columns=["mistake", "figure", "right", "wrong", "cost"]).set_index("mistake")


def header_assumed(records: pd.DataFrame, task: Task) -> Mistake:
    """Labels without a header line, read by a program that takes the first line for one.

    A table of names and labels loses its first image. Where names and labels are two files and only the labels are
    read so, every image gets the label of the next one.

    Args:
        records: in the order of the tables.
        task: whose labels they are.
    """
    both = pd.read_csv(io.StringIO(records[["image", "label"]].to_csv(index=False, header=False)))
    labels = pd.read_csv(io.StringIO(records["label"].to_csv(index=False, header=False))).iloc[:, 0].to_numpy()
    truth = records["label"].to_numpy()[: len(labels)]  # as zip() of names and labels does: silently, to the shorter
    share = float((truth != labels).mean())
    kappa = float(quadratic_weighted_kappa(confusion_matrix(truth, labels, len(task.classes))))
    return Mistake(
        "labels read as if they had a header",
        f"{KAPPA} of the labels with the truth",
        1.0,
        kappa,
        f"Of a table with two columns {len(records) - len(both)} of {len(records)} rows is lost. Of a pair of files, "
        f"where only the labels are read so, {share:.0%} of the labels are wrong, and nothing stops the training.",
        {"rows_lost": len(records) - len(both), "share_of_wrong_labels": share, "kappa_of_shifted_labels": kappa},
    )


def crop_channels_apart(pixels: np.ndarray, tolerance: int = TOLERANCE) -> tuple[np.ndarray, float]:
    """Cut the dark border off each colour channel by that channel's own threshold, and scale each to the same box.

    The box is the one that holds all that is lit in any channel, so that the framing stays and only the mistake shows.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        tolerance: a value up to this counts as dark.

    Returns:
        uint8 (H, W, 3) RGB, and how far one place of the picture lands apart in two channels: the largest distance
        along either axis, in pixels. A channel without a lit pixel stays as it is.
    """
    left, top, wide, high = cv2.boundingRect((pixels.max(axis=2) > tolerance).astype(np.uint8))
    if not (wide and high):
        return pixels, 0.0
    spoilt, landed = pixels.copy(), []
    corners = np.array([(left, top), (left + wide, top + high)], float)
    for channel in range(3):
        x, y, w, h = cv2.boundingRect((pixels[..., channel] > tolerance).astype(np.uint8))
        if w and h:
            cut = np.ascontiguousarray(pixels[y : y + h, x : x + w, channel])
            spoilt[top : top + high, left : left + wide, channel] = cv2.resize(cut, (wide, high))
            landed.append((corners - (x, y)) * (wide / w, high / h))
    return spoilt, float(np.ptp(landed, axis=0).max())


class ChannelsApart:
    """A store whose images went through `crop_channels_apart`, as PNG files."""

    def __init__(self, store: Store):
        self.location = store.location
        self._store = store

    def __contains__(self, name: str) -> bool:
        return name in self._store

    def read(self, name: str) -> bytes:
        """The bytes of one spoilt image."""
        spoilt, _ = crop_channels_apart(decode(self._store.read(name)))
        return cv2.imencode(".png", cv2.cvtColor(spoilt, cv2.COLOR_RGB2BGR))[1].tobytes()


def channels_cropped_apart(
    run: Run, split: str = "validation", which: str = "best", *, more_than: float = 2.0
) -> Mistake:
    """Each colour channel cropped by itself, before a trained model sees the image.

    Args:
        run: its model has learned from images whose channels stayed together.
        split: whose images are scored.
        which: the run's ``best`` or ``last`` weights.
        more_than: pixels, at the prepared size, from which channels count as moved.
    """
    rows, store, task = rows_of(run, split), run.prepared.store, run.task
    crop, size = CROPS[run.prepared.preprocessing.crop], run.prepared.preprocessing.size
    moved = []
    for name in rows["image"]:
        frame = decode(store.read(name))
        moved.append(crop_channels_apart(frame)[1] * size / len(crop(frame)))
    model, names = run.model(which), list(rows["image"])
    right, wrong = (
        _kappa(rows, predict(model, source, names).prediction.decided, task) for source in (store, ChannelsApart(store))
    )
    share, median, worst = float(np.mean(np.array(moved) > more_than)), float(np.median(moved)), max(moved)
    return Mistake(
        "each colour channel cropped by itself",
        f"{KAPPA}, {split} split",
        right,
        wrong,
        f"In {share:.0%} of {len(rows)} images the channels move against each other by more than {more_than:g} of "
        f"{size} pixels (median {median:.1f}, worst {worst:.1f}).",
        {"share_moved": share, "median_px": median, "worst_px": worst, "kappa_together": right, "kappa_apart": wrong},
        example=names[int(np.argmax(moved))],
    )


def eyes_on_both_sides(prepared: Prepared, task: Task, *, seeds: int = 20, patients: int = 500) -> Mistake:
    """Left and right eye of one patient in training and test: scored with a classifier that can only remember.

    Each test image gets the label of the most similar training image (thumbnails, left eyes mirrored, the distance of
    the pixels). No training, no chance of learning the disease; whatever it gains from a split by image is the other
    eye. Images of the prepared set's own test split take no part.

    Args:
        prepared: with the column ``eye``.
        task: whose labels they are.
        seeds: splits of either kind.
        patients: with both eyes, at most so many: distances grow with their square.

    Raises:
        MedicError: no patient outside the test split has both eyes.
    """
    rows = originals(prepared.records)
    rows = rows[(rows["split"] != "test") & rows["eye"].notna()]
    rows = rows[rows.groupby("patient")["eye"].transform("nunique") == 2]
    if rows.empty:
        raise MedicError(f"no patient of the prepared set {prepared.folder} has both eyes; this mistake needs pairs")
    kept = np.random.default_rng(0).permutation(rows["patient"].unique())[:patients]
    rows = rows[rows["patient"].isin(kept)].sort_values(["patient", "eye"]).reset_index(drop=True)
    labels, owners = rows["label"].to_numpy(), rows["patient"].to_numpy()
    seen = _thumbnails(prepared, rows)
    squares = (seen**2).sum(axis=1)
    distance = squares[:, None] + squares[None, :] - 2 * seen @ seen.T
    kappas: dict[str, list[float]] = {"image": [], "patient": []}
    known = []
    for seed in range(seeds):
        for kind, dealt in (
            ("image", rows.assign(patient=rows.index)),
            ("patient", rows),
        ):
            dealt = split_by_patient(dealt, validation=0, test=0.25, seed=seed)
            test = (dealt["split"] == "test").to_numpy()
            nearest = np.flatnonzero(~test)[distance[np.ix_(test, ~test)].argmin(axis=1)]
            kappas[kind].append(_kappa(rows[test], labels[nearest], task))
            if kind == "image":
                known.append(np.isin(owners[test], owners[~test]).mean())
    np.fill_diagonal(distance, np.inf)
    twins = float((distance.argmin(axis=1) == np.arange(len(rows)) ^ 1).mean())
    (flattered, spread), (honest, around) = ((np.mean(k), np.std(k)) for k in kappas.values())
    one, other = labels.reshape(-1, 2).T
    repeated = _kappa(rows, np.stack([other, one], axis=1).ravel(), task)
    return Mistake(
        "both eyes of a patient on two sides of a split",
        f"{KAPPA} of a nearest neighbour, {seeds} splits",
        float(honest),
        float(flattered),
        f"Dealt by image, the other eye of {np.mean(known):.0%} of the test images was trained on: {flattered:.2f} ± "
        f"{spread:.2f} instead of {honest:.2f} ± {around:.2f} (mean and standard deviation), a difference "
        f"{'within' if abs(flattered - honest) < max(spread, around) else 'beyond'} the spread of the splits. For "
        f"{twins:.0%} of the images the most similar one is the other eye; whoever always recognised it, and repeated "
        f"its label, would reach {repeated:.2f} without knowing the disease.",
        {
            "kappa_by_image": float(flattered),
            "kappa_by_patient": float(honest),
            "spread_by_image": float(spread),
            "spread_by_patient": float(around),
            "share_with_other_eye_trained_on": float(np.mean(known)),
            "share_most_similar_to_other_eye": twins,
            "kappa_of_the_other_eye": repeated,
        },
    )


def rows_of(run: Run, split: str) -> pd.DataFrame:
    """The records of one split of a run.

    Raises:
        MedicError: it has none.
    """
    rows = originals(run.records[run.records["split"] == split]).reset_index(drop=True)
    if rows.empty:
        raise MedicError(f"the run {run.folder} has no images in the split {split!r}; name one that it has")
    return rows


def _kappa(rows: pd.DataFrame, decided: np.ndarray, task: Task) -> float:
    return float(quadratic_weighted_kappa(confusion_matrix(rows["label"].to_numpy(), decided, len(task.classes))))


def _thumbnails(prepared: Prepared, rows: pd.DataFrame) -> np.ndarray:
    """float32 (N, THUMBNAIL * THUMBNAIL * 3), left eyes mirrored so that both look the same way."""
    seen = []
    for file, eye in zip(rows["file"], rows["eye"], strict=True):
        small = cv2.resize(prepared.pixels(file), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        seen.append((small[:, ::-1] if eye == "left" else small).astype(np.float32).ravel())
    return np.stack(seen)
