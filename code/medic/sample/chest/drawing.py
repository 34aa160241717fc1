"""Synthetic chest radiographs, drawn from random numbers: no real chest is behind any of them.

A radiograph is drawn as X-rays travel: what each tissue absorbs adds up to a density (soft tissue, mediastinum, heart,
diaphragm, bones; air in the lungs takes away), findings change it, and the film turns density into grey: dark where
much passed, bright where little did.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from medic.sample.chest.body import CONSTANTS, WALL, Chest, Person, curve, step
from medic.sample.chest.findings import SIGNS, collapsed
from medic.sample.strokes import Array, Rng, winding_paths


def radiograph(
    findings: Mapping[str, float], view: str, rng: Rng, *, person: Person, size: int, hospital: int = 1
) -> tuple[Array, dict[str, Array]]:
    """Draw one frontal chest radiograph, uint8 (size, size), bright where tissue is dense, and each finding's mask.

    ``findings`` says how severe each one that is present is, above 0 (barely seen) to 1, by its name in
    ``medic.task.FINDINGS``. ``view`` is "PA" (standing, at full inspiration) or "AP" (in bed: larger heart, less
    inspiration, less contrast). From ``rng`` comes what differs between two radiographs of a person: pose, exposure,
    grain, marker. The image has at least 64 pixels a side, hospital 1 or 2 records it. Masks are uint8, 255 where the
    finding shows.
    """
    film = CONSTANTS["hospital"][hospital - 1]
    chest = Chest(person, findings, view == "AP", rng, size, film["zoom"])
    vessels = _vessels(chest) * (1 - 0.65 * findings.get("Emphysema", 0))
    if severity := findings.get("Edema"):
        vessels = chest.blurred(vessels, 0.035 * severity, 0) * (1 + 0.8 * severity)
    if severity := findings.get("Pneumothorax"):
        vessels *= 1 - collapsed(severity, chest, person.source("Pneumothorax"))[1]
    density, masks = _soft_tissue(chest, rng) - chest.air + _bones(chest) + vessels, {}
    for name in (name for name in SIGNS if name in findings):
        added = SIGNS[name](findings[name], chest, person.source(name))
        masks[name] = np.where(np.abs(added) > 0.35 * np.abs(added).max(), 255, 0).astype(np.uint8)
        density += added
    if chest.bed and (leads := int(rng.integers(0, 4))):
        density += _wires(chest, rng, leads)
    return _record(density.astype(np.float32), chest, film, rng), masks


def _soft_tissue(chest: Chest, rng: Rng) -> Array:
    u, v, away, build = chest.u, chest.v, np.abs(chest.u), chest.person.build
    female = chest.person.sex == "F"
    outline = np.interp(v, *CONSTANTS["trunk"]) + 0.1 * build * step(v - 0.55, 0.1)
    trunk = step(outline - away, 0.025)
    gap = (rng.uniform(-0.15, 0.06) if chest.bed else rng.uniform(0.06, 0.4)) + 0.05 * female  # between trunk and arms
    arm = step(away - 1.16 - 0.12 * build - gap - 0.12 * np.clip(v - 0.6, 0, 2), 0.025) * step(v - 0.2, 0.1)
    body = np.maximum(trunk, 0.85 * arm)
    density = body * (0.62 + 0.12 * build + 0.2 * np.sqrt(np.clip(1 - (away / (outline + 0.04)) ** 2, 0, 1)))
    density += 0.12 * body * step(0.12 - v, 0.35) * step(away - 0.3, 0.3) * step(1.6 - away, 0.6)  # shoulders
    below = step(v - chest.dome, 0.02) * step(chest.wall + 0.02 - away, 0.03)
    density += trunk * 0.3 * below * (0.85 + 0.15 * step(v - chest.dome - 0.3, 0.3))
    density += trunk * (0.17 * step(-chest.middle, 0.022) * (1 - 0.85 * below) + 0.12 * chest.spot(0, 1.1, 0.35, 0.7))
    if female:
        low, wide = rng.uniform(1.3, 1.6), rng.uniform(0.4, 0.5)
        breast = np.hypot((away - 0.62) / wide, (v - low + 0.42) / 0.46)
        density += (0.05 + 0.08 * build) * step(1 - breast, 0.1) * (0.4 + 0.6 * step(v - low + 0.4, 0.4))
    density -= 0.15 * step(0.065 - np.abs(u + 0.02), 0.03) * step(0.5 - v, 0.06) * step(v + 0.6, 0.2)  # windpipe
    if rng.random() < 0.6:  # gas in the stomach
        x, y, wide, high = rng.uniform((0.38, 0.2, 0.13, 0.06), (0.6, 0.28, 0.26, 0.11))
        bubble = np.hypot((u - x) / wide, (v - chest.height - y) / high)
        density -= rng.uniform(0.14, 0.3) * step(1 - bubble, 0.2) * step(v - chest.dome - 0.03, 0.02)
    return density + body * (0.018 * chest.noise(rng, 4) + 0.012 * chest.noise(rng, 11))


def _bones(chest: Chest) -> Array:
    """Ribs, clavicles, shoulder blades, arms and spine."""
    rng, t = np.random.default_rng([chest.person.seed, 1]), np.linspace(0, 1, 20)
    slope, back, front, heavy = rng.uniform(0.8, 1.25), [], [], []
    for rib in range(10):
        start, fall = -0.1 + 0.115 * chest.height * rib + rng.normal(0, 0.008), slope * (0.14 + 0.022 * rib)
        reach = float(curve(*WALL, start + fall)) - 0.015
        rise = start - 0.07 * np.sin(np.pi * np.minimum(1, 1.4 * t)) * (1 - t) + fall * t**1.7
        back += [(side * (0.1 + (reach - 0.1) * np.sin(t * np.pi / 2) ** 0.9), rise) for side in (-1, 1)]
        if rib < 7:  # the lower ones end in cartilage far to the side
            u = reach + (0.34 + 0.045 * rib - reach) * (1 - np.cos(t * np.pi / 2))
            v = start + fall + slope * (0.32 + 0.02 * rib) * t**0.8 * (1 if rib else 0.6)
            front += [(side * u, v) for side in (-1, 1)]
    for side in (-1, 1):
        heavy += [(side * (0.13 + 0.98 * t), 0.17 - 0.3 * t + 0.05 * np.sin(2 * np.pi * t) + rng.normal(0, 0.02))]
        heavy += [(side * (0.98 + 0.2 * t - 0.28 * t * (1 - t)), 0.85 - 0.9 * t)]
    width = 0.085 * (1 - 0.3 * np.abs(t - 0.5))
    wide = np.stack([0.075 + 0.03 * (2 * t - 1) ** 2, np.full(20, 0.03)] * 2)
    drawn = [(0.08, back, width), (0.05, front, width * np.clip(1.25 - t, 0.25, 1)), (0.11, heavy, wide)]
    bones = []
    for weight, paths, widths in drawn:
        solid = chest.lines(np.moveaxis(paths, 1, 2), widths, 0)
        shell = np.clip(solid - cv2.GaussianBlur(solid, (0, 0), 0.035 * chest.radius), -0.1, 1)  # dense, so brighter
        bones.append(weight * (0.75 * solid + 0.9 * shell))
    behind, before, girdle = bones
    ribs = (behind + before) * step(chest.wall + 0.05 - np.abs(chest.u), 0.04) * (0.55 + 0.45 * chest.lung)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * chest.v / (0.1 * chest.height))
    spine = step(0.12 - np.abs(chest.u), 0.03) * (0.07 + 0.05 * discs)
    return ribs + girdle + spine + 0.1 * step(0.16 - np.hypot(np.abs(chest.u) - 1.32, chest.v - 0.12), 0.03)


def _vessels(chest: Chest) -> Array:
    """The lungs' vessels, which leave both hila, branch and taper, and the hila."""
    rng, t = np.random.default_rng([chest.person.seed, 2]), np.linspace(0, 1, 24)
    side = np.repeat([-1, 1], 10)
    fan = np.tile(np.linspace(-1.25, 1.45, 10), 2) + rng.normal(0, 0.1, 20)
    hilum = np.where(side[:, None] < 0, (-0.27, 0.46 * chest.height), (0.3, 0.42 * chest.height))
    start, heading = hilum + rng.normal(0, 0.03, (20, 2)), np.where(side > 0, fan, np.pi - fan)
    bend, length, size = side * rng.normal(0.15, 0.2, 20), rng.uniform(0.65, 1.1, 20), rng.uniform(0.7, 1.1, 20)
    drawn = np.zeros_like(chest.u)
    for children in (4, 2, 0):
        paths = winding_paths(rng, start, heading, length, bend, 0.12)
        drawn = np.maximum(drawn, chest.lines(paths, 0.052 * size[:, None] * (1 - 0.7 * t), 0.008))
        parent = np.repeat(np.arange(len(paths)), children)
        at = (np.tile(np.arange(children) + 0.7, len(paths)) / (children + 0.6)).clip(0.1, 0.95)
        start = paths[parent, (at * 23).astype(int)]
        along = start - paths[parent, (at * 23).astype(int) - 2]
        turn = np.where(np.arange(len(parent)) % 2, 1, -1) * rng.uniform(0.35, 0.8, len(parent))
        heading, bend = np.arctan2(along[:, 1], along[:, 0]) + turn, -0.5 * turn
        length = length[parent] * rng.uniform(0.3, 0.55, len(parent))
        size = size[parent] * (1 - 0.6 * at) * rng.uniform(0.6, 0.8, len(parent))
    hila = chest.spot(-0.3, 0.47 * chest.height, 0.07, 0.15) + chest.spot(0.3, 0.43 * chest.height, 0.07, 0.15)
    grain = chest.noise(rng, 40) + 0.7 * chest.noise(rng, 64)
    toward_base = 0.7 + 0.4 * np.clip(chest.v / chest.height, 0, 1)  # where more blood flows
    return chest.lung * (0.1 * drawn * toward_base + 0.12 * hila + 0.01 * grain)


def _wires(chest: Chest, rng: Rng, count: int) -> Array:
    """Leads of a heart monitor, as on many patients in bed."""
    start = np.stack([rng.choice([-1, 1], count) * rng.uniform(0.5, 1.1, count), rng.uniform(0, 0.6, count)], -1)
    lengths, bends = rng.uniform(0.6, 1.6, count), rng.normal(0, 0.8, count)
    leads = chest.lines(winding_paths(rng, start, rng.uniform(0.8, 2.4, count), lengths, bends, 0.3), 0.022, 0)
    pads = [step(0.035 - np.hypot(chest.u - u, chest.v - v), 0.015) for u, v in start]
    return 0.16 * np.maximum(leads, np.maximum.reduce(pads))


def _record(density: Array, chest: Chest, film: Mapping, rng: Rng) -> Array:
    """Scatter, exposure, grain, marker and borders that the beam did not reach."""
    size, bed = len(density), chest.bed
    share = rng.uniform(0.12, 0.4) if bed else rng.uniform(0.0, 0.15)
    density = (1 - share) * density + share * cv2.GaussianBlur(density, (0, 0), 0.12 * size)
    density = cv2.GaussianBlur(density, (0, 0), (film["blur"] + 0.0015 * bed) * size)
    gain = rng.uniform(0.8, 1.0) if bed else rng.uniform(0.88, 1.12)
    level = np.clip((density - rng.uniform(-0.06, 0.12)) * gain, 0, None) ** rng.uniform(*film["contrast"])
    level /= (1 + level**4) ** 0.25  # the film's shoulder: nothing is whiter than white
    image = 255 * (0.02 + 0.95 * level) + rng.uniform(0.15, 0.5) * rng.standard_normal((size, size), np.float32)
    image = np.rint(image).clip(0, 255).astype(np.uint8)

    place = np.array([rng.uniform(*film["across"]), rng.uniform(0.06, 0.14) + 0.15 * bed]) * size
    unit, thick = size / 40, max(1, round(size / 110))
    strokes = [film["letter"]]
    if bed:  # in a disc, with an arrow that points up
        centre = np.rint((place + np.array([0.4, 0]) * unit) * 16).astype(int).tolist()
        cv2.circle(image, centre, round(27 * unit), 10, -1, cv2.LINE_AA, 4)
        strokes += [[(0.4, 7), (0.4, 3.4)], [(-0.6, 4.6), (0.4, 3.4), (1.4, 4.6)]]
    points = [np.rint((place + np.array(stroke) * unit) * 16).astype(np.int32) for stroke in strokes]
    cv2.polylines(image, points, False, 245, thick, cv2.LINE_AA, 4)
    if rng.random() < 0.3:
        value, wide = (252 if rng.random() < 0.25 else 2), (size * rng.uniform(-0.03, 0.05, 4)).astype(int).clip(0)
        image[: wide[0]], image[size - wide[1] :], image[:, : wide[2]], image[:, size - wide[3] :] = (value,) * 4
    return image
