"""Findings on synthetic radiographs: what each of the 14 of NIH ChestX-ray14 adds to the density of the picture.

Signs follow Hansell et al., "Fleischner Society: glossary of terms for thoracic imaging", Radiology 246(3), 2008, where
it has the term; the cardiothoracic ratio is Danzer's (American Journal of the Medical Sciences 157, 1919). Severity
and size vary widely, and the signs of neighbouring findings overlap, as they do in radiographs.

Each takes its severity (0-1), the chest and a person's own random numbers, and returns what it adds, (size, size).
"""

import numpy as np

from medic.sample.chest.body import WALL, Chest, curve, step
from medic.sample.strokes import Array, Rng, winding_paths
from medic.task import FINDINGS


def _sides(rng: Rng, both: float) -> list[int]:
    """One side, or both with this probability."""
    first = int(rng.choice([-1, 1]))
    return [first, -first] if rng.random() < both else [first]


def _place(chest: Chest, rng: Rng, margin: float) -> tuple[float, float]:
    """A place in the visible lung, at least ``margin`` from the wall."""
    side, v = int(rng.choice([-1, 1])), chest.height * rng.uniform(0.22, 0.82)
    inner = 0.24 if v < 0.55 * chest.height else chest.heart[side] * (0.75 if side > 0 else 0.95)
    outer = float(curve(*WALL, v)) - margin
    return side * rng.uniform(min(inner + 0.5 * margin, outer), outer), v


def _lump(chest: Chest, rng: Rng, centre: tuple[float, float], radius: float, rough: float) -> Array:
    """A round opacity with a lobulated rim, 0-1; dense in the middle as a ball is."""
    u, v = chest.u - centre[0], chest.v - centre[1]
    rim = 1 + sum(rough / k**0.5 * rng.normal() * np.sin(k * np.arctan2(v, u) + rng.uniform(0, 6.3)) for k in (2, 3, 5))
    distance = np.hypot(u, v) / (radius * rim)
    return np.sqrt(np.clip(1.15 - distance**2, 0, 1)) * step(1.05 - distance, 0.12)


def cardiomegaly(s: float, chest: Chest, rng: Rng) -> Array:
    """The larger heart is drawn with the body; here it is only a little denser."""
    low = step(chest.v - 0.4 * chest.height, 0.1) * step(chest.dome - chest.v, 0.03)
    return 0.02 * low * step(-chest.middle, 0.03) * step(np.abs(chest.u) - 0.1, 0.05)


def nodule(s: float, chest: Chest, rng: Rng) -> Array:
    """Rounded opacities up to 3 cm across, one to three, not touching."""
    opacity, places = np.zeros_like(chest.u), []
    for _ in range(1 + rng.binomial(2, 0.4)):
        centre, radius = _place(chest, rng, 0.14), 0.056 + 0.043 * s * rng.uniform(0.7, 1)
        if all(np.hypot(*np.subtract(centre, other)) > 0.3 for other in places):
            places.append(centre)
            opacity += (0.2 + 0.14 * s) * _lump(chest, rng, centre, radius, 0.05)
    return opacity


def mass(s: float, chest: Chest, rng: Rng) -> Array:
    """An opacity greater than 3 cm, its rim lobulated."""
    radius = 0.13 + 0.14 * s
    return (0.24 + 0.14 * s) * _lump(chest, rng, _place(chest, rng, 0.75 * radius), radius, 0.09)


def infiltration(s: float, chest: Chest, rng: Rng) -> Array:
    """Patchy, ill-defined haze (infiltrate: a term that the glossary discourages; NIH's labels use it)."""
    patches, haze = np.clip(0.5 + 0.55 * chest.noise(rng, 9) + 0.45 * chest.noise(rng, 18), 0, 1.6), 0
    for side in _sides(rng, 0.45):
        spots = [
            (side * rng.uniform(0.3, 0.75), chest.height * rng.uniform(0.35, 0.95), *rng.uniform(0.16, 0.3, 2))
            for _ in range(3)
        ]
        haze = haze + chest.at(side) * np.clip(sum(chest.spot(*spot) for spot in spots), 0, 1)
    return (0.06 + 0.18 * s) * haze * patches * chest.lung


def consolidation(s: float, chest: Chest, rng: Rng) -> Array:
    """A homogeneous opacity of a lobe, cut off at the fissure, with dark bronchi in it."""
    side, upper = int(rng.choice([-1, 1])), rng.random() < 0.35
    fissure = chest.height * rng.uniform(0.46, 0.56) + rng.uniform(-0.15, 0.15) * (np.abs(chest.u) - 0.5)
    wavy, below = 0.06 * chest.noise(rng, 6), chest.v - fissure
    if upper:  # sharp at the fissure, fading away from it
        lobe = step(-below, 0.035) * step((0.3 + 0.35 * s) * chest.height + below + wavy, 0.12)
    else:
        lobe = step(below - 0.05, 0.035) * step(below - 0.3 * (1 - s) * chest.height + wavy, 0.14)
    fan = np.linspace(-1.3, 0.1, 7) if upper else np.linspace(0.1, 1.3, 7)
    start = np.array([side * 0.3, 0.47 * chest.height]) + rng.normal(0, 0.03, (7, 2))
    heading, length = np.where(side > 0, fan, np.pi - fan), rng.uniform(0.4, 0.75, 7)
    paths = winding_paths(rng, start, heading, length, rng.normal(0, 0.3, 7), 0.15)
    bronchi = chest.lines(paths, np.linspace(0.05, 0.025, paths.shape[1]), 0.01)
    return (0.16 + 0.2 * s) * lobe * chest.at(side) * chest.lung * (1 - 0.3 * bronchi)


def pneumonia(s: float, chest: Chest, rng: Rng) -> Array:
    """One dense segment, widening towards the pleura, soft-edged and mottled."""
    side, turn = int(rng.choice([-1, 1])), rng.uniform(-0.5, 0.9)
    u, v = side * chest.u - 0.27, chest.v - chest.height * 0.47
    along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    half = 0.1 + (0.28 + 0.2 * s) * np.clip(along, 0, 1)
    wedge = step(half - np.abs(across) + 0.04 * chest.noise(rng, 10), 0.09) * step(along - 0.14, 0.12)
    return (0.1 + 0.22 * s) * wedge * np.clip(1 + 0.22 * chest.noise(rng, 16), 0.4, 1.5) * chest.at(side) * chest.lung


def atelectasis(s: float, chest: Chest, rng: Rng) -> Array:
    """Plates of airless lung at the base; with more of it the base is dense and the diaphragm high."""
    side, count = int(rng.choice([-1, 1])), 1 + int(rng.integers(0, 3))  # the side first, as in Chest
    low = chest.height * (0.62 + 0.28 * (np.arange(count) + rng.uniform(0, 0.6, count)) / count)
    tilt = rng.normal(0.12, 0.2, count)
    start = np.stack([side * rng.uniform(0.36, 0.5, count), low], -1)
    heading, length = np.where(side > 0, tilt, np.pi - tilt), rng.uniform(0.32, 0.55, count)
    paths = winding_paths(rng, start, heading, length, rng.normal(0, 0.15, count), 0.05)
    plates = chest.lines(paths, (0.04 + 0.03 * s) * np.sin(np.linspace(0.35, 2.8, paths.shape[1])))
    base = np.clip((chest.v - chest.dome + 0.35) / 0.35, 0, 1) ** 1.5 * max(0.0, s - 0.35) * 0.35
    above = (0.25 + 0.75 * chest.lung) * step(chest.dome + 0.03 - chest.v, 0.03)
    return ((0.12 + 0.18 * s) * plates + base * chest.at(side)) * above


def edema(s: float, chest: Chest, rng: Rng) -> Array:
    """Haze round both hila and short lines at the lateral bases (Kerley B lines)."""
    haze = sum(chest.spot(side * 0.42, 0.55 * chest.height, 0.26 + 0.08 * s, 0.42) * chest.at(side) for side in (-1, 1))
    cloudy = np.clip(1 + 0.16 * chest.noise(rng, 8) + 0.12 * chest.noise(rng, 20), 0.4, 1.6)
    side, v = np.repeat([-1, 1], 12), chest.height * (0.72 + 0.025 * np.tile(np.arange(12), 2))
    v = v + rng.normal(0, 0.01, 24)
    start = np.stack([side * (curve(*WALL, v) - 0.03), v], -1)
    heading = np.where(side > 0, np.pi, 0) + rng.normal(0, 0.1, 24)
    paths = winding_paths(rng, start, heading, rng.uniform(0.08, 0.16, 24), np.zeros(24), 0.02)
    lines = (0.04 + 0.07 * s) * chest.lines(paths, 0.014, 0.003)
    return ((0.05 + 0.24 * s) * haze * cloudy + 0.03 * s + lines) * chest.lung


def fibrosis(s: float, chest: Chest, rng: Rng) -> Array:
    """A net of fine lines, densest at the bases and below the pleura (reticular pattern)."""
    # the zero lines of a smooth texture form a net
    net = sum(weight * np.exp(-0.5 * (chest.noise(rng, cells) / 0.22) ** 2) for cells, weight in ((26, 0.6), (40, 0.5)))
    rim = np.exp(-np.clip(chest.wall - np.abs(chest.u), 0, None) / 0.3)
    low = np.clip((chest.v / chest.height - 0.25) / 0.7, 0, 1)
    return (0.05 + 0.3 * s) * net * low * (0.35 + 0.65 * rim) * chest.lung


def emphysema(s: float, chest: Chest, rng: Rng) -> Array:
    """Besides large dark lungs over a flat diaphragm: bullae, round lucencies with a hairline wall."""
    opacity = -(0.01 + 0.08 * s) * np.ones_like(chest.u)
    for _ in range(rng.binomial(3, s)):
        u, v, radius = rng.choice([-1, 1]) * rng.uniform(0.45, 0.65), rng.uniform(0.2, 0.55), rng.uniform(0.12, 0.22)
        distance = np.hypot(chest.u - u, chest.v - v) / radius
        opacity += 0.06 * np.exp(-0.5 * ((distance - 1) / 0.09) ** 2) - 0.05 * step(1 - distance, 0.1)
    return opacity * chest.lung


def hernia(s: float, chest: Chest, rng: Rng) -> Array:
    """A hiatus hernia: part of the stomach behind the heart, round, with gas over a level of fluid."""
    radius = 0.21 + 0.12 * s
    u, v = chest.u - rng.uniform(0.02, 0.16), chest.v - chest.height + 0.55 * radius
    distance = np.hypot(u / 1.15, v) / radius
    gas = step(0.88 - distance, 0.06) * step(-v - 0.05 * radius, 0.012)
    return 0.12 * step(1 - distance, 0.08) - (0.33 + 0.1 * s) * gas


def effusion(s: float, chest: Chest, rng: Rng) -> Array:
    """Fluid blunts the costophrenic angle, then rises along the wall with a meniscus.

    In bed it also spreads behind the lung as a veil that thins upwards.
    """
    opacity = np.zeros_like(chest.u)
    for side, amount in zip(_sides(rng, 0.35), (s, 0.6 * s), strict=False):
        corner = (np.abs(np.abs(chest.u) - 0.97) < 0.04) & (side * chest.u > 0)
        angle = float(np.median(chest.dome[corner])) if corner.any() else chest.height + 0.3
        lateral = np.clip((np.abs(chest.u) - 0.25) / 0.75, 0, 1.1)
        surface = angle - 0.16 - 0.92 * amount**1.3 + (0.1 + 0.14 * amount) * (1 - lateral**2.5)
        fluid = step(chest.v - surface, 0.07) * chest.at(side)
        # as dense as what lies below the diaphragm, whose outline it hides
        opacity += fluid * (0.8 + 0.2 * amount) * (chest.air + 0.2 * chest.lung)
        if chest.bed:
            opacity += 0.1 * np.clip((chest.v - surface + 0.7) / 0.9, 0, 1) * chest.at(side) * chest.lung * (1 - fluid)
    return opacity


def collapsed(s: float, chest: Chest, rng: Rng) -> tuple[Array, Array]:
    """Return how far each pixel lies outside a collapsed lung, and 0-1 where air without vessels surrounds it."""
    side, sunk = rng.choice([-1, 1]), 0.1 + 0.34 * s  # the lung falls from the apex and shrinks to the hilum
    v = chest.v - sunk * np.clip(1 - chest.v / chest.height, 0, 1)
    edge = curve(*WALL, np.maximum(v, 0)) * (0.93 - 0.33 * s * (1 - 0.3 * chest.v / chest.height))
    beyond = np.maximum(np.abs(chest.u) - edge, np.where(chest.v < sunk, sunk - chest.v, 0))
    beyond = beyond + 0.01 * chest.noise(rng, 6)
    return np.where(side * chest.u > 0, beyond, -9), step(beyond, 0.025) * chest.at(side) * chest.lung


def pneumothorax(s: float, chest: Chest, rng: Rng) -> Array:
    """A dark rim without vessels beyond the line of the visceral pleura."""
    beyond, rim = collapsed(s, chest, rng)
    line = np.exp(-0.5 * (beyond / 0.014) ** 2) * chest.lung
    return 0.13 * line - (0.1 + 0.05 * s) * rim + (0.02 + 0.06 * s) * (beyond > -9) * (chest.lung - rim)


def thickening(s: float, chest: Chest, rng: Rng) -> Array:
    """A dense line along the lateral wall or a cap over the apex."""
    sides, apical, uneven = _sides(rng, 0.3), rng.random() < 0.45, 1 + 0.3 * chest.noise(rng, 9)
    inward = chest.wall - np.abs(chest.u)
    along = step(chest.v - (0.1 if apical else 0.45), 0.12) * step(chest.dome + 0.1 - chest.v, 0.05)
    band = step((0.05 + 0.085 * s) * uneven - inward, 0.02) * step(inward + 0.02, 0.02) * along
    if apical:
        cap = sum(chest.spot(side * 0.5, 0.02, 0.26, 0.06 + 0.07 * s) for side in (-1, 1))
        band = np.maximum(band, np.clip(2.2 * cap - 0.5, 0, 1) * step(inward, 0.03))
    return (0.2 + 0.18 * s) * band * sum(chest.at(side) for side in sides) * (0.3 + 0.7 * chest.lung)


SIGNS = dict(zip(FINDINGS, (atelectasis, cardiomegaly, effusion, infiltration, mass, nodule, pneumonia, pneumothorax,
                            consolidation, edema, emphysema, fibrosis, thickening, hernia), strict=True))  # fmt: skip
