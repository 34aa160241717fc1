"""Whether the images that a service is asked about still look like those that its model was tested on.

A bundle carries a `Reference`: histograms of its test images and of the answers to them. A service keeps counts in the
same bins, by the hour (`medic.deployment.counts`). `compare` tests one against the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from medic.errors import MedicError
from medic.task import Prediction, Task

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "drift.json"
"""The file of a bundle that holds its reference."""
BINS = 10
"""Of a measured property, with as many images of the reference each. Of one with ten values or fewer, such as the size
where all images come from one camera, each value has a bin of its own."""
FALSE_ALARMS = 0.05
"""Share of undisturbed weeks in which a change is said to be found, at most."""
LOOKS, LENGTH, SPAN = {"day": 7, "hour": 168}, {"day": 10, "hour": 13}, 7
"""Looks in a week and letters of their names, by how often is looked; the days (or hours) of the wide window."""
PSI, POWER = 0.2, 0.8
"""The shift that a look should find, and with which probability; from 0.2 on, a shift is usually called large."""

Measures = Mapping[str, np.ndarray]
"""What was measured of N images, float (N,) by property: brightness, sharpness, size and, where known, distance."""
Hours = dict[str, dict[str, np.ndarray]]
"""Images in each bin, int (B,), by hour (UTC, such as 2026-11-26T08) and property."""


@dataclass(frozen=True)
class Reference:
    """What held-out images looked like, and how they were answered.

    Attributes:
        task: what is predicted.
        split: of which images, such as ``test``.
        patients: of how many.
        edges: by measured property, the upper ends (included) of all bins but the last, which has none.
        counts: images in each bin, by property: the measured ones and ``decided``; of several findings ``decided`` and
            the name, for each.
        confusion: images by decision (rows) and true class (columns), for each property that is a decision.
        design: by property, how much more its shares vary than those of as many independent images would, because the
            images of a patient are alike (mean design effect; Rao and Scott, Annals of Statistics 12(1), 1984, p. 46).
    """

    task: Task
    split: str
    patients: int
    edges: dict[str, list[float]]
    counts: dict[str, list[int]]
    confusion: dict[str, list[list[int]]]
    design: dict[str, float]

    @classmethod
    def fit(
        cls, measures: Measures, prediction: Prediction, truth: np.ndarray, patients: Sequence, split: str
    ) -> "Reference":
        """Fit to N answered images of known class.

        Args:
            measures: see ``medic.deployment.counts.measure``.
            prediction: what the model answered.
            truth: class codes int (N,); of several findings 0 or 1, (N, C).
            patients: whose image each is; where none is known, one an image.
            split: of which images, such as ``test``.
        """
        task, edges, confusion, counts, design = prediction.task, {}, {}, {}, {}
        for name, values in measures.items():
            ends = np.unique(np.asarray(values, float))
            if len(ends) <= BINS:
                ends = np.sort([*ends, *np.nextafter(ends, -np.inf)])
            else:
                ends = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
            edges[name] = ends.astype(float).tolist()
        decided, true = _decisions(task, prediction.decided), _decisions(task, np.asarray(truth))
        size = 2 if task.kind == "multilabel" else len(task.classes)
        for name, codes in decided.items():
            confusion[name] = np.bincount(codes * size + true[name], minlength=size**2).reshape(size, size).tolist()
        whose = np.unique(np.asarray(patients), return_inverse=True)[1]
        for name, bins in (_bins(edges, measures) | decided).items():
            images = np.bincount(bins, minlength=len(edges[name]) + 1 if name in edges else size)
            sums, counts[name] = np.zeros((whose.max() + 1, len(images))), images.tolist()
            np.add.at(sums, whose, np.eye(len(images))[bins] - images / len(bins))
            spread = (sums**2).sum(axis=0)[images > 0] / images[images > 0]
            design[name] = max(1.0, float(spread.sum() / max(1, len(spread) - 1)))
        return cls(task, split, int(whose.max()) + 1, edges, counts, confusion, design)

    def count(self, measures: Measures, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return how many of N images lie in each bin, int64 (B,) by property: in none where it was not measured."""
        found = _bins(self.edges, measures) | _decisions(self.task, prediction.decided)
        nothing = np.zeros(0, int)
        return {name: np.bincount(found.get(name, nothing), minlength=len(then)) for name, then in self.counts.items()}

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return asdict(self) | {"task": self.task.to_dict()}

    @classmethod
    def from_dict(cls, values: dict) -> "Reference":
        """Return what ``to_dict`` wrote."""
        return cls(**{**values, "task": Task.from_dict(values["task"])})


def _bins(edges: Mapping[str, list[float]], measures: Measures) -> dict[str, np.ndarray]:
    # What is no number lies in the last bin.
    return {name: np.searchsorted(ends, measures[name]) for name, ends in edges.items() if name in measures}


def _decisions(task: Task, codes: np.ndarray) -> dict[str, np.ndarray]:
    if task.kind != "multilabel":
        return {"decided": codes}
    return {f"decided {name}": codes[:, code] for code, name in enumerate(task.classes)}


@dataclass(frozen=True, eq=False)
class Drift:
    """What `compare` found.

    Attributes:
        looks: one row a look, window and property: ``since`` and ``until`` (first and last day or hour of the window,
            UTC), ``property``, ``images``, ``needed`` (images that a PSI of 0.2 takes to be found with 80 %; infinite
            where the reference is too small for it), ``psi``, ``p`` (corrected by Holm's method within a look) and
            ``moved``.
        shares: one row a class: ``reference`` and ``now`` (estimated shares of the true classes, 0..1), ``low`` and
            ``high`` (95 % interval). Now is since the decisions moved, or else the last window.
    """

    looks: "pd.DataFrame"
    shares: "pd.DataFrame"

    @property
    def since(self) -> dict[str, str]:
        """The first look that found a change, by the property that moved."""
        return self.looks[self.looks["moved"]].groupby("property", sort=False)["until"].first().to_dict()

    def __str__(self) -> str:
        last = self.looks[self.looks["until"] == self.looks["until"].iloc[-1]]
        psi = last.drop_duplicates("property").set_index("property")["psi"]
        wide = last.drop_duplicates("property", keep="last")
        few = ", ".join(wide["property"][wide["images"] < wide["needed"]])
        said = [f"{name} moved: first found {day} (UTC); PSI {psi[name]:.2f} now" for name, day in self.since.items()]
        said = said or ["nothing moved" + (f"; too few images yet to be sure of {few}" if few else "")]
        said += ["{}: {:.1%} then, now {:.1%} ({:.1%} to {:.1%})".format(*row) for row in self.shares.itertuples()]
        if any(not name.startswith("decided") for name in self.since):
            said.append("the images look different, so these shares may be wrong: label some of the new images first")
        return "\n".join(said)


def compare(reference: Reference, hours: Hours, by: str = "day") -> Drift:
    """Look at each day (or hour) for a change of any property against the reference.

    A look has two windows: its day, for what happens at once, and the seven days up to it, for what is small or slow. A
    chi-square test a property and window compares two samples, corrected for patients (design effect) and within a look
    for the number of tests (Holm, Scandinavian Journal of Statistics 6(2), 1979, p. 65). The looks of a week share its
    false alarms, 5 %, evenly.

    Args:
        reference: of the bundle that answered.
        hours: see ``medic.deployment.counts.read_counts``.
        by: ``day`` or ``hour``.

    Raises:
        MedicError: nothing was counted.
    """
    import pandas as pd

    if not hours:
        raise MedicError("no answered image has been counted yet; ask again ten seconds after the first answer")
    ends = sorted({hour[: LENGTH[by]] for hour in hours})
    level, tests = FALSE_ALARMS / LOOKS[by], 2 * len(reference.counts)
    needed = {name: images_needed(reference, name, level / tests) for name in reference.counts}

    def window(since: str, until: str) -> dict[str, np.ndarray]:
        found = [counts for hour, counts in hours.items() if since <= hour[: LENGTH[by]] <= until]
        return {name: np.sum([counts[name] for counts in found], axis=0) for name in reference.counts}

    rows = []
    for place, until in enumerate(ends):
        for since in dict.fromkeys([until, ends[max(0, place - SPAN + 1)]]):
            for name, counts in window(since, until).items():
                then = reference.counts[name]
                p = chi_square(then, counts, reference.design[name]) if counts.sum() else 1.0
                rows.append((since, until, name, int(counts.sum()), needed[name], psi(then, counts), p))
    table = pd.DataFrame(rows, columns=["since", "until", "property", "images", "needed", "psi", "p"])
    table["p"] = table.groupby("until")["p"].transform(holm)
    table["moved"] = table["p"] <= level
    decided = table["until"][table["moved"] & table["property"].isin(list(reference.confusion))]
    return Drift(table, class_shares(reference, window(decided.min() if len(decided) else ends[-SPAN:][0], ends[-1])))


def psi(reference: Sequence[int], counts: Sequence[int]) -> float:
    """Return the population stability index of two histograms, 0 or more (Siddiqi, Credit Risk Scorecards, 2006).

    Half an image is added to each bin, so that an empty one does not make it infinite. Without any change it is about
    (B - 1) (1/n + 1/m) for B bins and n and m images (Yurdakul and Naranjo, Journal of Risk Model Validation 14(4),
    2020): with few images, it is large by chance.
    """
    p, q = ((np.asarray(images) + 0.5) / (np.sum(images) + 0.5 * len(images)) for images in (reference, counts))
    return float(((q - p) * np.log(q / p)).sum())


def chi_square(reference: Sequence[int], counts: Sequence[int], design: float = 1.0) -> float:
    """Return the p-value of Pearson's test that two histograms are samples of one distribution.

    Rare bins are joined until five images are expected in each (Cochran, Annals of Mathematical Statistics 23(3), 1952,
    p. 328), by the reference alone: joined by what was counted, the test would find too much.
    """
    from scipy import stats

    reference, counts = np.asarray(reference), np.asarray(counts)
    expected = np.where(reference > 0, reference * min(1, counts.sum() / reference.sum()), counts)
    order, columns, start = np.argsort(expected, kind="stable"), [], 0
    for end in range(1, len(order) + 1):
        if min(expected[order[start:end]].sum(), expected[order[end:]].sum()) >= 5 or end == len(order):
            columns.append([reference[order[start:end]].sum(), counts[order[start:end]].sum()])
            start = end
    if len(columns) == 1:
        return 1.0
    found = stats.chi2_contingency(columns, correction=False)
    return float(stats.chi2.sf(found.statistic / design, found.dof))


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p-values corrected for their number by Holm's method."""
    p, adjusted = np.asarray(p, float), np.empty(len(p))
    order = np.argsort(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def images_needed(reference: Reference, name: str, level: float) -> float:
    """Return how many images a test at ``level`` needs to find a PSI of 0.2 with 80 %; infinite if none are enough.

    The test's statistic is then a noncentral chi-square variable of about PSI / (1/n + 1/m), with n and m images.
    """
    from scipy import special, stats

    freedom = max(1, np.count_nonzero(reference.counts[name]) - 1)
    noncentrality = special.chndtrinc(stats.chi2.isf(level, freedom), freedom, 1 - POWER)
    share = PSI / (noncentrality * reference.design[name]) - 1 / sum(reference.counts[name])
    return float(np.ceil(1 / share)) if share > 0 else np.inf


def class_shares(reference: Reference, counts: Mapping[str, np.ndarray], draws: int = 1000) -> "pd.DataFrame":
    """Estimate the shares of the true classes from the decisions, by the inverse of the confusion matrix.

    It is right where prevalence changed and the images of each class look as before (black box shift estimation;
    Lipton, Wang and Smola, ICML 2018, PMLR 80, p. 3122). The interval is from a parametric bootstrap of both samples;
    half an image is added to each decision of the new one (Jeffreys), because a few that are alike prove little; to the
    estimate, too, where the reference has none of the decisions that were made.

    Returns:
        See ``Drift.shares``; of several findings, one row a finding.
    """
    import pandas as pd

    rows, rng = {}, np.random.default_rng(0)
    for name, table in reference.confusion.items():
        joint = np.array(table) / np.sum(table)
        known, seen = (max(1, int(np.sum(images) / reference.design[name])) for images in (table, counts[name]))
        shares = counts[name] / np.sum(counts[name])
        likely = shares if joint.sum(axis=1) @ shares else (seen * shares + 0.5) / np.sum(seen * shares + 0.5)
        tables = np.concatenate(
            [[joint], rng.multinomial(known, joint.ravel(), draws).reshape(-1, *joint.shape) / known]
        )
        found = np.concatenate([[likely], rng.dirichlet(seen * shares + 0.5, draws)])
        # Of each class, the weight that turns the reference's decisions into those found; none can be below 0.
        estimates = (np.linalg.pinv(tables) @ found[..., None])[..., 0] * tables.sum(axis=1)
        estimates = estimates.clip(0) / estimates.clip(0).sum(axis=1, keepdims=True)
        low, high = np.quantile(estimates[1:], [0.025, 0.975], axis=0)
        for code, label in enumerate(reference.task.classes) if len(reference.confusion) == 1 else [(1, name[8:])]:
            rows[label] = (joint.sum(axis=0)[code], estimates[0, code], low[code], high[code])
    return pd.DataFrame.from_dict(rows, "index", columns=["reference", "now", "low", "high"])
