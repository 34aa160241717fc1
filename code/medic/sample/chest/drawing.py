"""Synthetic chest radiographs, drawn from random numbers: no real chest is behind any of them.

A radiograph is drawn as X-rays travel: what each tissue absorbs adds up to a density (soft tissue, mediastinum, heart,
diaphragm, bones; air in the lungs takes away), findings change it, and the film turns density into grey: dark where
much passed, bright where little did.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from medic.errors import MedicError
from medic.sample.chest.anatomy import Anatomy, Chest, View, pose, sample_anatomy, spot, step
from medic.sample.chest.findings import changes_of, draw_findings
from medic.sample.chest.pleura import pneumothorax_rim
from medic.sample.strokes import draw_ribbons, winding_paths
from medic.task import FINDINGS

SMALLEST = 64  # pixels; below, neither ribs nor a nodule can be drawn


def radiograph(
    findings: Mapping[str, float],
    view: View,
    rng: np.random.Generator,
    *,
    anatomy: Anatomy | None = None,
    size: int = 256,
) -> np.ndarray:
    """Draw one frontal chest radiograph.

    Args:
        findings: how severe each finding that is present is, 0 (barely seen) to 1, by its name in
            ``medic.task.FINDINGS``; none for a healthy chest. A person's finding keeps its place.
        view: "PA" (standing, at full inspiration) or "AP" (in bed: larger heart, less inspiration, less contrast).
        rng: source of everything that differs between two radiographs: pose, exposure, grain, marker.
        anatomy: the person; None draws another one.
        size: of the square image, pixels, at least 64.

    Returns:
        uint8 (size, size): bright where tissue is dense. The patient's left is at the image's right.

    Raises:
        MedicError: an unknown finding or view, a severity outside 0-1, or fewer than 64 pixels.
    """
    unknown = [name for name, severity in findings.items() if name not in FINDINGS or not 0 <= severity <= 1]
    if unknown or view not in ("PA", "AP") or size < SMALLEST:
        raise MedicError(
            f"cannot draw {dict(findings)} in view {view!r} at {size} pixels: use findings of medic.task.FINDINGS with "
            f"a severity of 0-1, 'PA' or 'AP', and at least {SMALLEST} pixels"
        )
    anatomy = anatomy or sample_anatomy(rng)
    chest = pose(anatomy, view, changes_of(findings, anatomy), rng, size)
    density = _soft_tissue(chest, anatomy, view, rng)
    density -= chest.air * (1.15 if "Emphysema" in findings else 1.0)
    density += _bones(chest, anatomy)
    vessels = _vessels(chest, anatomy)
    if "Emphysema" in findings:
        vessels *= 0.75 - 0.45 * findings["Emphysema"]
    if "Edema" in findings:
        vessels = cv2.GaussianBlur(vessels, (0, 0), 0.03 * chest.radius) * (1.3 + 0.5 * findings["Edema"])
    if "Pneumothorax" in findings:
        vessels *= 1 - pneumothorax_rim(chest, anatomy, findings["Pneumothorax"])
    density += vessels
    density = draw_findings(density, findings, chest, anatomy, view)
    if view == "AP":
        _wires(density, chest, rng)
    return _film(density, chest, view, rng)


def _soft_tissue(chest: Chest, anatomy: Anatomy, view: View, rng: np.random.Generator) -> np.ndarray:
    """Trunk, neck, shoulders, arms, mediastinum, heart, what lies below the diaphragm, breasts, windpipe, stomach."""
    u, v, away = chest.u, chest.v, np.abs(chest.u)
    thick = 0.12 * anatomy.build
    knots = np.array([-0.9, -0.4, -0.28, -0.2, -0.08, 0.06, 0.3, 0.5, 0.62, 1.0, 1.6, 2.4])
    widths = np.array([0.46, 0.47, 0.53, 0.68, 1.05, 1.45, 1.8, 1.6, 1.2, 1.12, 1.1, 1.08])
    widths[8:] += thick + 0.04
    widths[:3] += 0.7 * thick
    outline = np.interp(v, knots, widths)
    trunk = step(outline - away, 0.025)
    gap = rng.uniform(-0.15, 0.06) if view == "AP" else rng.uniform(0.06, 0.4)  # between trunk and arms
    if anatomy.sex == "F":
        gap += 0.05
    arm = step(away - widths[9] - gap - 0.12 * np.clip(v - 0.6, 0, 2), 0.025) * step(v - 0.2, 0.1)
    body = np.maximum(trunk, 0.85 * arm)
    round_trunk = np.sqrt(np.clip(1 - (away / (outline + 0.04)) ** 2, 0, 1))
    density = body * (0.62 + thick + 0.2 * round_trunk)
    density += 0.12 * body * step(0.12 - v, 0.35) * step(away - 0.3, 0.3) * step(1.6 - away, 0.6)  # shoulders
    below = step(v - chest.dome, 0.02) * step(chest.wall + 0.02 - away, 0.03)
    middle = step(-chest.middle, 0.022)
    density += trunk * 0.3 * below * (0.85 + 0.15 * step(v - chest.dome - 0.3, 0.3))
    density += trunk * (0.17 * middle * (1 - 0.85 * below) + 0.12 * spot(chest, (0.0, 1.1), (0.35, 0.7)))
    if anatomy.sex == "F":
        low, wide = rng.uniform(1.3, 1.6), rng.uniform(0.4, 0.5)
        for side in (-1, 1):
            distance = np.hypot((u - side * 0.62) / wide, (v - low + 0.42) / 0.46)
            density += (0.05 + 0.08 * anatomy.build) * step(1 - distance, 0.1) * (0.4 + 0.6 * step(v - low + 0.4, 0.4))
    windpipe = step(0.065 - np.abs(u + 0.02), 0.03) * step(0.5 - v, 0.06) * step(v + 0.6, 0.2)
    density -= 0.15 * windpipe
    if rng.random() < 0.6:  # gas in the stomach, level below the left dome
        centre = (rng.uniform(0.38, 0.6), chest.height + anatomy.left_lower + rng.uniform(0.12, 0.2))
        bubble = np.hypot((u - centre[0]) / rng.uniform(0.13, 0.26), (v - centre[1]) / rng.uniform(0.06, 0.11))
        density -= rng.uniform(0.14, 0.3) * step(1 - bubble, 0.2) * step(v - chest.dome - 0.03, 0.02)
    for _ in range(rng.poisson(1.2)):  # gas in the bowel
        density -= rng.uniform(0.05, 0.15) * spot(
            chest, (rng.uniform(-0.6, 0.8), chest.height + rng.uniform(0.5, 0.8)), tuple(rng.uniform(0.04, 0.11, 2))
        )
    density += body * (0.018 * chest.noise(rng, 4) + 0.012 * chest.noise(rng, 11))
    return density.astype(np.float32)


def _bones(chest: Chest, anatomy: Anatomy) -> np.ndarray:
    """Ribs, clavicles, shoulder blades and spine, float32 (size, size)."""
    rng = np.random.default_rng([anatomy.seed, 1])
    behind, before, heavy = chest.layer(), chest.layer(), chest.layer()
    gap, slope = 0.115 * chest.height, anatomy.rib_slope
    t = np.linspace(0, 1, 20)
    back, front = [], []
    for rib in range(10):
        start = -0.1 + gap * rib + rng.normal(0, 0.008)
        fall = slope * (0.14 + 0.022 * rib)
        reach = chest.wall_at(start + fall) - 0.015
        for side in (-1, 1):
            u = 0.1 + (reach - 0.1) * np.sin(t * np.pi / 2) ** 0.9
            v = start - 0.07 * np.sin(np.pi * np.minimum(1, 1.4 * t)) * (1 - t) + fall * t**1.7
            back.append(np.stack([side * u, v], -1))
            if rib < 7:  # the lower ones end in cartilage far to the side
                end = 0.34 + 0.045 * rib
                u = reach + (end - reach) * (1 - np.cos(t * np.pi / 2))
                v = start + fall + slope * (0.32 + 0.02 * rib) * t**0.8 * (1 if rib else 0.6)
                front.append(np.stack([side * u, v], -1))
    width = 0.085 * (1 - 0.3 * np.abs(t - 0.5))
    draw_ribbons(behind, chest, np.array(back), np.tile(width, (len(back), 1)), np.full(len(back), 200))
    taper = np.clip(1.25 - t, 0.25, 1)
    draw_ribbons(before, chest, np.array(front), np.tile(width * taper, (len(front), 1)), np.full(len(front), 200))
    clavicles, blades = [], []
    for side in (-1, 1):
        rise = rng.normal(0, 0.02)
        u = 0.13 + 0.98 * t
        v = 0.17 - 0.3 * t + 0.05 * np.sin(2 * np.pi * t) + rise
        clavicles.append(np.stack([side * u, v], -1))
        blades.append(np.stack([side * (0.98 + 0.2 * t - 0.28 * t * (1 - t)), 0.85 - 0.9 * t], -1))
    draw_ribbons(heavy, chest, np.array(clavicles), np.tile(0.075 + 0.03 * (2 * t - 1) ** 2, (2, 1)), np.full(2, 230))
    draw_ribbons(heavy, chest, np.array(blades), np.full((2, 20), 0.05), np.full(2, 110))
    inside = step(chest.wall + 0.05 - np.abs(chest.u), 0.04)
    ribs = inside * (0.1 * _hollow(behind, chest) + 0.06 * _hollow(before, chest)) * (0.55 + 0.45 * chest.lung)
    spine = step(0.12 - np.abs(chest.u), 0.03)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * chest.v / (0.1 * chest.height))
    humerus = sum(step(0.16 - np.hypot(chest.u - side * 1.32, chest.v - 0.12), 0.03) for side in (-1, 1))
    return ribs + 0.13 * _hollow(heavy, chest) + spine * (0.07 + 0.05 * discs) + 0.1 * humerus


def _hollow(layer: np.ndarray, chest: Chest) -> np.ndarray:
    """A layer of bones with brighter rims, as their dense shell gives, float32 0-1.3."""
    solid = layer.astype(np.float32) / 255
    return 0.75 * solid + 0.9 * np.clip(solid - cv2.GaussianBlur(solid, (0, 0), 0.035 * chest.radius), -0.1, 1)


def _vessels(chest: Chest, anatomy: Anatomy) -> np.ndarray:
    """The lungs' vessels, which leave both hila, branch and taper, and the hila; float32 (size, size)."""
    rng = np.random.default_rng([anatomy.seed, 2])
    each = 10
    side = np.repeat([-1, 1], each)
    fan = np.tile(np.linspace(-1.25, 1.45, each), 2) + rng.normal(0, 0.1, 2 * each)
    hilum = np.where(side[:, None] < 0, (-0.27, 0.46 * chest.height), (0.3, 0.42 * chest.height))
    start = hilum + rng.normal(0, 0.03, (2 * each, 2)) + np.stack([0 * fan, 0.07 * fan], -1)
    heading = np.where(side > 0, fan, np.pi - fan)
    bend = side * rng.normal(0.15, 0.2, 2 * each)
    length = rng.uniform(0.65, 0.95, 2 * each) * (1 + 0.2 * np.abs(fan))
    size = rng.uniform(0.7, 1.1, 2 * each)
    layer = chest.layer()
    levels = []
    t = np.linspace(0, 1, 16)
    for level in range(3):
        paths = winding_paths(rng, start, heading, length, bend, 0.12, points=16)
        widths = 0.052 * size[:, None] * (1 - 0.7 * t)
        levels.append((paths, widths, 200 * np.clip(size, 0.35, 1) ** 0.5))
        if level == 2:
            break
        children = (4, 2)[level]
        parent = np.repeat(np.arange(len(paths)), children)
        at = np.tile((np.arange(children) + 0.7) / (children + 0.6), len(paths)) + rng.normal(0, 0.05, len(parent))
        spot_at = np.clip(at * 15, 2, 14).astype(int)
        start = paths[parent, spot_at]
        along = start - paths[parent, spot_at - 2]
        turn = np.where(np.arange(len(parent)) % 2, 1, -1) * rng.uniform(0.35, 0.8, len(parent))
        heading = np.arctan2(along[:, 1], along[:, 0]) + turn
        bend = -0.5 * turn
        length = length[parent] * rng.uniform(0.3, 0.55, len(parent))
        size = size[parent] * (1 - 0.6 * at) * rng.uniform(0.6, 0.8, len(parent))
    for paths, widths, values in reversed(levels):
        draw_ribbons(layer, chest, paths, widths, values)
    lines = cv2.GaussianBlur(layer, (0, 0), max(0.008 * chest.radius, 0.3)).astype(np.float32) / 255
    hila = sum(spot(chest, (s * 0.3, h * chest.height), (0.07, 0.15)) for s, h in ((-1, 0.47), (1, 0.43)))
    grain = chest.noise(rng, 40) + 0.7 * chest.noise(rng, 64)
    # vessels are larger towards the bases, where more blood flows
    toward_base = 0.7 + 0.4 * np.clip(chest.v / chest.height, 0, 1)
    return (chest.lung * (0.12 * lines * toward_base + 0.12 * hila + 0.014 * grain)).astype(np.float32)


def _wires(density: np.ndarray, chest: Chest, rng: np.random.Generator) -> None:
    """Leads of a heart monitor, as on many patients in bed, in place."""
    count = rng.integers(0, 4)
    if not count:
        return
    start = np.stack([rng.choice([-1, 1], count) * rng.uniform(0.5, 1.1, count), rng.uniform(0.0, 0.6, count)], -1)
    paths = winding_paths(
        rng, start, rng.uniform(0.8, 2.4, count), rng.uniform(0.6, 1.6, count), rng.normal(0, 0.8, count), 0.3
    )
    layer = chest.layer()
    draw_ribbons(layer, chest, paths, np.full(paths.shape[:2], 0.022), np.full(count, 200))
    for place in start:
        cv2.circle(
            layer,
            tuple(np.rint(chest.to_pixels(place)).astype(int).tolist()),
            max(1, round(0.03 * chest.radius)),
            255,
            -1,
        )
    density += 0.16 * layer.astype(np.float32) / 255


def _film(density: np.ndarray, chest: Chest, view: View, rng: np.random.Generator) -> np.ndarray:
    """Scatter, exposure, grain, marker and collimation; uint8 (size, size)."""
    size, bed = chest.size, view == "AP"
    scatter = cv2.GaussianBlur(density, (0, 0), 0.12 * size)
    share = rng.uniform(0.12, 0.4) if bed else rng.uniform(0.0, 0.15)
    density = (1 - share) * density + share * scatter
    density = cv2.GaussianBlur(density, (0, 0), (0.004 if bed else 0.0025) * size)
    low = rng.uniform(-0.06, 0.12)
    gain = rng.uniform(0.8, 1.0) if bed else rng.uniform(0.88, 1.12)
    level = np.clip((density - low) * gain, 0, None)
    level = level ** rng.uniform(0.85, 1.5)
    level = level / (1 + level**4) ** 0.25  # the film's shoulder: nothing is whiter than white
    image = 255 * (0.02 + 0.95 * level)
    image += rng.uniform(0.3, 1.0) * (1.3 if bed else 1.0) * rng.standard_normal((size, size), np.float32)
    image = np.rint(image).clip(0, 255).astype(np.uint8)
    _marker(image, bed, rng)
    _collimate(image, rng)
    return image


def _marker(image: np.ndarray, bed: bool, rng: np.random.Generator) -> None:
    """The technician's "L" at the patient's left; for patients in bed in a disc, with an arrow that points up."""
    size = len(image)
    unit = size * rng.uniform(0.022, 0.03)
    place = np.array([rng.uniform(0.88, 0.95), rng.uniform(0.05, 0.14) if not bed else rng.uniform(0.1, 0.35)]) * size
    strokes = [[(0, -1), (0, 1), (1.1, 1)]]
    if bed:
        cv2.circle(image, _fixed(place + unit * np.array([0.4, 0])), round(1.7 * unit * 16), 10, -1, cv2.LINE_AA, 4)
        strokes += [[(0.4, 7), (0.4, 3.4)], [(-0.6, 4.6), (0.4, 3.4), (1.4, 4.6)]]
    for stroke in strokes:
        points = np.rint((place + np.array(stroke) * unit) * 16).astype(np.int32)
        cv2.polylines(image, [points], False, 245, max(1, round(size / 110)), cv2.LINE_AA, 4)
    if not bed and rng.random() < 0.5:  # the lead letter's bead
        cv2.circle(image, _fixed(place + unit * np.array([0.5, -2.4])), round(0.8 * unit * 16), 225, -1, cv2.LINE_AA, 4)


def _fixed(place: np.ndarray) -> tuple[int, int]:
    """A place in pixels as OpenCV wants it with ``shift=4``."""
    return tuple(np.rint(place * 16).astype(int).tolist())


def _collimate(image: np.ndarray, rng: np.random.Generator) -> None:
    """Borders that the beam did not reach, black or (on films that were scanned) white, in place."""
    if rng.random() > 0.35:
        return
    size, value = len(image), 252 if rng.random() < 0.25 else 2
    for side in range(4):
        if rng.random() < 0.45:
            wide = max(1, round(size * rng.uniform(0.01, 0.05)))
            slant = round(size * rng.normal(0, 0.012))
            edge = np.array([(0, 0), (size, 0), (size, max(0, wide + slant)), (0, max(0, wide - slant))], np.int32)
            turned = np.rot90(image, side)
            strip = np.ascontiguousarray(turned)
            cv2.fillPoly(strip, [edge], value)
            turned[:] = strip
