"""Findings of the pleura on synthetic radiographs: effusion, pneumothorax, thickening.

Signs follow Hansell et al., "Fleischner Society: glossary of terms for thoracic imaging", Radiology 246(3), 2008,
where it has the term (pneumothorax, apical cap).
"""

import numpy as np

from medic.sample.chest.anatomy import Anatomy, Chest, View, spot, step


def source_of(anatomy: Anatomy, code: int) -> np.random.Generator:
    """Random numbers that are a person's own for one finding: it keeps its place between radiographs."""
    return np.random.default_rng([anatomy.seed, 100 + code])


def draw_effusion(density: np.ndarray, severity: float, chest: Chest, view: View, rng: np.random.Generator) -> None:
    """Fluid blunts the costophrenic angle, then rises along the wall with a meniscus.

    In bed it also spreads behind the lung as a veil that thins upwards.
    """
    first = rng.choice([-1, 1])
    both = rng.random() < 0.35
    for side, amount in ((first, severity), (-first, 0.6 * severity)):
        if side != first and not both:
            continue
        lateral = np.clip((np.abs(chest.u) - 0.25) / 0.75, 0, 1.1)
        angle = _angle(chest, side)
        top = angle - 0.16 - 0.92 * amount**1.3
        surface = top + (0.1 + 0.14 * amount) * (1 - lateral**2.5)
        fluid = step(chest.v - surface, 0.07) * chest.at(side)
        # as dense as what lies below the diaphragm, whose outline it hides
        density += fluid * (0.8 + 0.2 * amount) * (chest.air + 0.2 * chest.lung)
        if view == "AP":
            veil = np.clip((chest.v - surface + 0.7) / 0.9, 0, 1) * chest.at(side) * chest.lung
            density += 0.1 * veil * (1 - fluid)


def _angle(chest: Chest, side: int) -> float:
    """How low the costophrenic angle of one side lies, chest units."""
    near = (np.abs(np.abs(chest.u) - 0.97) < 0.04) & (side * chest.u > 0)
    return float(np.median(chest.dome[near])) if near.any() else chest.height + 0.3


def pneumothorax_rim(chest: Chest, anatomy: Anatomy, severity: float) -> np.ndarray:
    """Where air lies between lung and wall, 0-1, float32 (size, size)."""
    beyond, here = _beyond_lung(chest, anatomy, severity)
    return step(beyond, 0.025) * here * chest.lung


def _beyond_lung(chest: Chest, anatomy: Anatomy, severity: float) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel lies outside the collapsed lung, and where that side is."""
    rng = source_of(anatomy, 7)
    side = rng.choice([-1, 1])
    sunk = 0.1 + 0.34 * severity  # the lung falls from the apex and shrinks to the hilum
    v = chest.v - sunk * np.clip(1 - chest.v / chest.height, 0, 1)
    lung = chest.wall_at(np.maximum(v, 0)) * (0.93 - 0.33 * severity * (1 - 0.3 * chest.v / chest.height))
    above = np.where(chest.v < sunk, sunk - chest.v, 0)
    return (np.maximum(np.abs(chest.u) - lung, above) + 0.01 * chest.noise(rng, 6)).astype(np.float32), chest.at(side)


def draw_pneumothorax(density: np.ndarray, severity: float, chest: Chest, anatomy: Anatomy) -> None:
    """A dark rim without vessels beyond the line of the visceral pleura."""
    beyond, here = _beyond_lung(chest, anatomy, severity)
    rim = pneumothorax_rim(chest, anatomy, severity)
    density -= (0.09 + 0.04 * severity) * rim
    inside = chest.lung * here - rim
    density += (0.03 + 0.1 * severity) * inside * (0.4 + 0.6 * step(chest.v - 0.3, 0.3))
    line = np.exp(-0.5 * (beyond / 0.014) ** 2) * here * chest.lung
    density += 0.13 * line


def draw_thickening(density: np.ndarray, severity: float, chest: Chest, rng: np.random.Generator) -> None:
    """A dense line along the lateral wall or a cap over the apex, which also rounds the angle."""
    first = rng.choice([-1, 1])
    both, apical = rng.random(2) < (0.3, 0.45)
    thick = 0.05 + 0.085 * severity
    uneven = 1 + 0.3 * chest.noise(rng, 9)
    for side in (-1, 1) if both else (first,):
        inward = chest.wall - np.abs(chest.u)
        along = step(chest.v - (0.1 if apical else 0.45), 0.12) * step(chest.dome + 0.1 - chest.v, 0.05)
        band = step(thick * uneven - inward, 0.02) * step(inward + 0.02, 0.02) * along
        if apical:
            cap = spot(chest, (side * 0.5, 0.02), (0.26, 0.06 + 0.07 * severity))
            band = np.maximum(band, np.clip(2.2 * cap - 0.5, 0, 1) * step(inward, 0.03))
        density += 0.34 * band * chest.at(side) * (0.3 + 0.7 * chest.lung)
