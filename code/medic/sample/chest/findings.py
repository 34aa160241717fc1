"""Findings on synthetic radiographs: what each of the 14 of NIH ChestX-ray14 changes in the picture.

Signs follow Hansell et al., "Fleischner Society: glossary of terms for thoracic imaging", Radiology 246(3), 2008, where
it has the term; the cardiothoracic ratio is Danzer's (American Journal of the Medical Sciences 157, 1919). Severity
and size vary widely, and the signs of neighbouring findings overlap, as they do in radiographs.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from medic.sample.chest.anatomy import Anatomy, Changes, Chest, View, spot, step
from medic.sample.chest.pleura import draw_effusion, draw_pneumothorax, draw_thickening, source_of
from medic.sample.strokes import draw_ribbons, winding_paths
from medic.task import FINDINGS


def changes_of(findings: Mapping[str, float], anatomy: Anatomy) -> Changes:
    """What findings do to the shape of heart, lungs and diaphragm."""
    changes = Changes()
    for name, severity in findings.items():
        if name == "Cardiomegaly":  # a cardiothoracic ratio over 0.5, whatever it was before
            changes += Changes(heart=0.54 + 0.14 * severity - anatomy.cardiothoracic_ratio)
        elif name == "Emphysema":
            narrower = 0 if "Cardiomegaly" in findings else 0.03 + 0.05 * severity
            changes += Changes(heart=-narrower, height=0.08 + 0.1 * severity, flat=0.55 + 0.45 * severity)
        elif name == "Fibrosis":
            changes += Changes(height=-0.04 - 0.07 * severity)
        elif name == "Atelectasis" and severity > 0.4:
            side = source_of(anatomy, FINDINGS.index(name)).choice([-1, 1])
            raised = 0.12 + 0.2 * (severity - 0.4)
            changes += Changes(
                raised=(raised, 0.0) if side < 0 else (0.0, raised), shift=side * (0.04 + 0.14 * (severity - 0.4))
            )
    return changes


def draw_findings(
    density: np.ndarray, findings: Mapping[str, float], chest: Chest, anatomy: Anatomy, view: View
) -> np.ndarray:
    """Add findings to a density, float32 (size, size); the person's anatomy holds where each of them lies."""
    density = density.astype(np.float32)
    for name in FINDINGS:
        if name not in findings:
            continue
        severity, rng = findings[name], source_of(anatomy, FINDINGS.index(name))
        if name == "Effusion":
            draw_effusion(density, severity, chest, view, rng)
        elif name == "Pneumothorax":
            draw_pneumothorax(density, severity, chest, anatomy)
        elif name == "Pleural_Thickening":
            draw_thickening(density, severity, chest, rng)
        elif name in IN_THE_LUNG:
            density += IN_THE_LUNG[name](severity, chest, rng).astype(np.float32)
    return density


def _place(chest: Chest, rng: np.random.Generator, margin: float, side: int | None = None) -> tuple[float, float]:
    """A place in the visible lung, at least ``margin`` from the wall and the dome, chest units."""
    side = side or int(rng.choice([-1, 1]))
    v = chest.height * rng.uniform(0.22, 0.82)
    inner = 0.24 if v < 0.55 * chest.height else chest.heart[side > 0] * (0.75 if side > 0 else 0.95)
    outer = float(chest.wall_at(v)) - margin
    return side * rng.uniform(min(inner + 0.5 * margin, outer), outer), v


def _lump(
    chest: Chest, rng: np.random.Generator, centre: tuple[float, float], radius: float, rough: float
) -> np.ndarray:
    """A round opacity with a lobulated rim, 0-1; dense in the middle as a ball is."""
    u, v = chest.u - centre[0], chest.v - centre[1]
    angle = np.arctan2(v, u)
    rim = np.ones_like(u)
    for harmonic in (2, 3, 5):
        rim += rough / harmonic**0.5 * rng.normal() * np.sin(harmonic * angle + rng.uniform(0, 6.3))
    distance = np.hypot(u, v) / (radius * rim)
    return np.sqrt(np.clip(1.15 - distance**2, 0, 1)) * step(1.05 - distance, 0.12)


def _nodule(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Rounded opacities, well or poorly defined, up to 3 cm across: 1-3 of them."""
    opacity, places = 0, []
    for _ in range(1 + rng.binomial(2, 0.4)):
        centre, radius = _place(chest, rng, 0.14), 0.056 + 0.043 * severity * rng.uniform(0.7, 1)
        if all(
            np.hypot(centre[0] - u, centre[1] - v) > 0.3 for u, v in places
        ):  # two that touch would look like a mass
            places.append(centre)
            opacity = opacity + (0.17 + 0.14 * severity) * _lump(chest, rng, centre, radius, 0.05)
    return opacity


def _mass(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """An opacity greater than 3 cm, its rim lobulated."""
    radius = 0.13 + 0.14 * severity
    centre = _place(chest, rng, 0.75 * radius)
    return (0.24 + 0.14 * severity) * _lump(chest, rng, centre, radius, 0.09)


def _infiltration(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Patchy, ill-defined haze (infiltrate: a term that the glossary discourages; NIH's labels use it)."""
    opacity = 0
    sides = (-1, 1) if rng.random() < 0.45 else (int(rng.choice([-1, 1])),)
    patches = np.clip(0.5 + 0.55 * chest.noise(rng, 9) + 0.45 * chest.noise(rng, 18), 0, 1.6)
    for side in sides:
        where = 0
        for _ in range(3):
            centre = (side * rng.uniform(0.3, 0.75), chest.height * rng.uniform(0.35, 0.95))
            where = where + spot(chest, centre, tuple(rng.uniform(0.16, 0.3, 2)))
        opacity = opacity + chest.at(side) * np.clip(where, 0, 1)
    return (0.13 + 0.13 * severity) * opacity * patches * chest.lung


def _consolidation(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """A homogeneous opacity of a lobe, cut off at the fissure, with dark bronchi in it."""
    side = int(rng.choice([-1, 1]))
    upper = rng.random() < 0.35
    fissure = chest.height * rng.uniform(0.46, 0.56) + rng.uniform(-0.15, 0.15) * (np.abs(chest.u) - 0.5)
    wavy = 0.06 * chest.noise(rng, 6)
    reach = (0.3 + 0.35 * severity) * chest.height
    distance = (fissure - chest.v) if upper else (chest.v - fissure - 0.05)
    # sharp at the fissure, fading away from it (upper lobe) or filling the base (lower lobe)
    lobe = step(distance, 0.035) * (step(reach - distance + wavy, 0.12) if upper else 1.0)
    if not upper:
        lobe = lobe * step(distance - (0.5 - 0.5 * severity) * 0.6 * chest.height + wavy, 0.14)
    opacity = (0.3 + 0.1 * severity) * lobe * chest.at(side) * chest.lung
    count = 7
    start = np.tile([side * 0.3, 0.47 * chest.height], (count, 1)) + rng.normal(0, 0.03, (count, 2))
    fan = np.linspace(-1.3, 0.1, count) if upper else np.linspace(0.1, 1.3, count)
    heading = np.where(side > 0, fan, np.pi - fan) + rng.normal(0, 0.1, count)
    paths = winding_paths(rng, start, heading, rng.uniform(0.4, 0.75, count), rng.normal(0, 0.3, count), 0.15)
    layer = chest.layer()
    draw_ribbons(layer, chest, paths, np.tile(np.linspace(0.05, 0.025, 24), (count, 1)), np.full(count, 220))
    return opacity * (1 - 0.3 * cv2.GaussianBlur(layer, (0, 0), 0.01 * chest.radius) / 255)


def _pneumonia(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """One dense segment, widening towards the pleura, soft-edged and mottled."""
    side = int(rng.choice([-1, 1]))
    turn = rng.uniform(-0.5, 0.9)
    hilum = (side * 0.27, chest.height * 0.47)
    u, v = side * (chest.u - hilum[0]), chest.v - hilum[1]
    along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    half = 0.1 + (0.28 + 0.2 * severity) * np.clip(along, 0, 1)
    wedge = step(half - np.abs(across) + 0.04 * chest.noise(rng, 10), 0.09) * step(along - 0.14, 0.12)
    mottled = np.clip(1 + 0.22 * chest.noise(rng, 16), 0.4, 1.5)
    return (0.23 + 0.13 * severity) * wedge * mottled * chest.at(side) * chest.lung


def _atelectasis(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Plates of airless lung at the base; with more of it the base is dense and the diaphragm high."""
    side = int(rng.choice([-1, 1]))  # the first draw, as in changes_of
    count = 1 + rng.integers(0, 3)
    start = np.stack(
        [
            side * rng.uniform(0.36, 0.5, count),
            chest.height * (0.62 + 0.28 * (np.arange(count) + rng.uniform(0, 0.6, count)) / count),
        ],
        -1,
    )
    tilt = rng.normal(0.12, 0.2, count)
    heading = np.where(side > 0, tilt, np.pi - tilt)
    length = rng.uniform(0.32, 0.55, count)
    paths = winding_paths(rng, start, heading, length, rng.normal(0, 0.15, count), 0.05)
    widths = (0.04 + 0.03 * severity) * np.sin(np.linspace(0.35, 2.8, 24)) * np.ones((count, 1))
    layer = chest.layer()
    draw_ribbons(layer, chest, paths, widths, rng.uniform(200, 250, count))
    plates = (0.2 + 0.1 * severity) * cv2.GaussianBlur(layer, (0, 0), max(0.3, 0.006 * chest.radius)) / 255
    base = np.clip((chest.v - chest.dome + 0.35) / 0.35, 0, 1) ** 1.5 * max(0.0, severity - 0.35) * 0.35
    return (plates + base * chest.at(side)) * (0.25 + 0.75 * chest.lung)


def _edema(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Haze round both hila and short lines at the lateral bases (Kerley B lines)."""
    haze = 0
    for side in (-1, 1):
        wing = spot(chest, (side * 0.42, 0.55 * chest.height), (0.26 + 0.08 * severity, 0.42))
        haze = haze + wing * chest.at(side)
    cloudy = np.clip(1 + 0.16 * chest.noise(rng, 8) + 0.12 * chest.noise(rng, 20), 0.4, 1.6)
    lines = chest.layer()
    count = 12
    v = chest.height * (0.72 + 0.3 * np.tile(np.arange(count) / count, 2)) + rng.normal(0, 0.01, 2 * count)
    side = np.repeat([-1, 1], count)
    start = np.stack([side * (chest.wall_at(v) - 0.03), v], -1)
    heading = np.where(side > 0, np.pi, 0) + rng.normal(0, 0.1, 2 * count)
    paths = winding_paths(rng, start, heading, rng.uniform(0.08, 0.16, 2 * count), np.zeros(2 * count), 0.02, points=8)
    draw_ribbons(lines, chest, paths, np.full((2 * count, 8), 0.014), np.full(2 * count, 220))
    return ((0.17 + 0.15 * severity) * haze * cloudy + 0.03 + 0.1 * lines.astype(np.float32) / 255) * chest.lung


def _fibrosis(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """A net of fine lines, densest at the bases and below the pleura (reticular pattern)."""
    net = 0
    for cells, weight in ((26, 0.6), (40, 0.5)):
        noise = chest.noise(rng, cells)
        net = net + weight * np.exp(-0.5 * (noise / 0.22) ** 2)  # the zero lines of a smooth texture form a net
    base = np.clip(chest.v / chest.height - 0.25, 0, 0.7) / 0.7
    rim = np.exp(-np.clip(chest.wall - np.abs(chest.u), 0, None) / 0.3)
    where = np.clip(base * (0.35 + 0.9 * rim), 0, 1)
    return (0.2 + 0.2 * severity) * net * where * chest.lung


def _emphysema(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Besides large dark lungs over a flat diaphragm: bullae, round lucencies with a hairline wall."""
    opacity = np.zeros_like(chest.u)
    for _ in range(rng.binomial(3, severity)):
        side, radius = rng.choice([-1, 1]), rng.uniform(0.12, 0.22)
        distance = np.hypot(chest.u - side * rng.uniform(0.45, 0.65), chest.v - rng.uniform(0.2, 0.55)) / radius
        opacity += 0.06 * np.exp(-0.5 * ((distance - 1) / 0.09) ** 2) - 0.05 * step(1 - distance, 0.1)
    return opacity * chest.lung - 0.03 * severity * chest.lung


def _hernia(severity: float, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """A hiatus hernia: part of the stomach behind the heart, round, with gas over a level of fluid."""
    radius = 0.21 + 0.12 * severity
    centre = (rng.uniform(0.02, 0.16), chest.height - 0.55 * radius)
    u, v = chest.u - centre[0], chest.v - centre[1]
    # the level stays horizontal in the picture; the body is hardly ever tilted enough to tell
    distance = np.hypot(u / 1.15, v) / radius
    sac = step(1 - distance, 0.08)
    gas = step(0.88 - distance, 0.06) * step(-v - 0.05 * radius, 0.012)
    return 0.12 * sac - (0.33 + 0.1 * severity) * gas


IN_THE_LUNG = {
    "Atelectasis": _atelectasis,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Hernia": _hernia,
}
