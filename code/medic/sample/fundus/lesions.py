"""Lesions of diabetic retinopathy for synthetic photographs, by grade.

What a grade shows follows the International Clinical Diabetic Retinopathy scale (Wilkinson et al., "Proposed
international clinical diabetic retinopathy and diabetic macular edema disease severity scales", Ophthalmology 110,
2003). Numbers and sizes vary widely within a grade, so that neighbouring grades overlap as they do in photographs.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from medic.sample.strokes import Field, draw_ribbons, draw_spots, fill, winding_paths


@dataclass(frozen=True)
class Lesions:
    """Layers to lay over a healthy retina, each uint8 (height, width) or None where there is nothing of the kind.

    Attributes:
        blood: what absorbs as blood does, 0 (none) to 255 (opaque).
        exudate: yellow deposits of fat.
        cotton_wool: pale, soft-edged swellings of the nerve fibre layer.
        scar: pale fibrous tissue that grows along new vessels.
    """

    blood: np.ndarray | None = None
    exudate: np.ndarray | None = None
    cotton_wool: np.ndarray | None = None
    scar: np.ndarray | None = None


def draw_lesions(grade: int, field: Field, rng: np.random.Generator) -> Lesions:
    """Draw what a retina of this grade (0-4) shows."""
    if grade == 0:
        return Lesions()
    blood = field.layer()
    if grade == 1:
        _microaneurysms(blood, field, rng, 2 + rng.poisson(5))
        return Lesions(blood)
    severity = rng.beta(1.3, 1.6) if grade == 2 else rng.beta(2, 1.5)
    _microaneurysms(blood, field, rng, rng.poisson(6 + 14 * severity))
    if grade == 3:
        _haemorrhages_in_quadrants(blood, field, rng, severity)
        _tangles(blood, field, rng, field.places(rng, rng.integers(2, 6), reach=0.7), reach=0.09)
    else:
        _haemorrhages(blood, field, rng, field.places(rng, 2 + rng.poisson(3 + 9 * severity)))
    scar = _new_vessels(blood, field, rng) if grade == 4 else None
    exudate = _exudates(field, rng, severity) if rng.random() < 0.65 else None
    cotton_wool = _cotton_wool_spots(field, rng, grade) if rng.random() < (0.35, 0.6, 0.35)[grade - 2] else None
    return Lesions(blood, exudate, cotton_wool, scar)


def _microaneurysms(blood: np.ndarray, field: Field, rng: np.random.Generator, count: int) -> None:
    """Tiny red dots, most of them at the posterior pole."""
    places = field.places(rng, count, reach=0.8)
    draw_spots(blood, field, rng, (places, rng.uniform(0.008, 0.0135, len(places))), rng.uniform(130, 190, len(places)))


def _haemorrhages(blood: np.ndarray, field: Field, rng: np.random.Generator, places: np.ndarray) -> None:
    """Dots and blots; some are flames, drawn out along the nerve fibres."""
    layer = field.layer()
    radii = np.exp(rng.normal(np.log(0.0165), 0.42, len(places))).clip(0.009, 0.05)
    flame = rng.random(len(places)) < 0.25
    values = rng.uniform(95, 205, len(places))
    draw_spots(layer, field, rng, (places[~flame], radii[~flame]), values[~flame], irregular=0.22)
    draw_spots(layer, field, rng, (places[flame], radii[flame]), values[flame], irregular=0.3, stretch=0.6)
    np.maximum(blood, cv2.GaussianBlur(layer, (0, 0), 0.005 * field.radius), out=blood)


def _haemorrhages_in_quadrants(blood: np.ndarray, field: Field, rng: np.random.Generator, severity: float) -> None:
    """Many haemorrhages in each of the four quadrants round the optic disc and macula."""
    places = field.places(rng, 300)
    quadrant = 2 * (places[:, 0] > -0.1) + (places[:, 1] > 0)
    count = rng.poisson(7 + 11 * severity, 4)
    _haemorrhages(blood, field, rng, np.concatenate([places[quadrant == q][: count[q]] for q in range(4)]))


def _exudates(field: Field, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Clusters of yellow spots, some of them in a ring round a leaking vessel."""
    layer = field.layer()
    for centre in field.places(rng, 1 + rng.poisson(0.6 + 2.4 * severity), reach=0.65):
        count = rng.integers(8, 22 + int(50 * severity))
        angle = rng.uniform(0, 2 * np.pi, count)
        distance = np.abs(rng.normal(0, rng.uniform(0.04, 0.1), count))
        if rng.random() < 0.35:
            opening = rng.uniform(0, 2 * np.pi)
            angle = opening + rng.uniform(0.5, 2 * np.pi - 0.5, count)
            distance = rng.uniform(0.08, 0.14) + rng.normal(0, 0.012, count)
        places = centre + np.stack([np.cos(angle), np.sin(angle)], -1) * distance[:, None]
        radii = np.exp(rng.normal(np.log(0.0075), 0.45, count)).clip(0.004, 0.024)
        draw_spots(layer, field, rng, (places, radii), rng.uniform(140, 255, count), irregular=0.3, stretch=0.3)
    return cv2.GaussianBlur(layer, (0, 0), max(0.4, 0.0022 * field.radius))


def _cotton_wool_spots(field: Field, rng: np.random.Generator, grade: int) -> np.ndarray:
    """A few pale patches with feathered edges."""
    layer = field.layer()
    places = field.places(rng, 1 + rng.poisson(1.5 if grade == 2 else 3), reach=0.75)
    radii = rng.uniform(0.025, 0.055, len(places))
    draw_spots(layer, field, rng, (places, radii), rng.uniform(110, 190, len(places)), irregular=0.3, stretch=0.35)
    return cv2.GaussianBlur(layer, (0, 0), 0.011 * field.radius)


def _tangles(
    blood: np.ndarray, field: Field, rng: np.random.Generator, places: np.ndarray, reach: float, count: int = 5
) -> None:
    """Fine winding vessels that set out from each place: shunts (IRMA) when few and short, new vessels when many."""
    start = np.repeat(places, count, axis=0) + rng.normal(0, 0.2 * reach, (len(places) * count, 2))
    heading = rng.uniform(0, 2 * np.pi, len(start))
    bend = rng.choice([-1, 1], len(start)) * rng.uniform(1.5, 5.5, len(start))
    length = reach * rng.uniform(1.2, 3, len(start))
    paths = winding_paths(rng, start, heading, length, bend, rng.uniform(0.5, 1.1, len(start)), points=30)
    widths = np.full(paths.shape[:2], 0.0055)
    draw_ribbons(blood, field, paths, widths, rng.uniform(95, 150, len(paths)))


def _new_vessels(blood: np.ndarray, field: Field, rng: np.random.Generator) -> np.ndarray | None:
    """Grade 4: new vessels, blood before the retina or in the vitreous (at least one of these), perhaps scars."""
    at_disc, elsewhere, boat, vitreous = rng.random(4) < (0.5, 0.45, 0.55, 0.3)
    if not (at_disc or elsewhere or boat or vitreous):
        elsewhere = True
    if at_disc:
        _tangles(blood, field, rng, np.array([field.disc]), reach=1.3 * field.disc_radius, count=16)
    if elsewhere:
        places = field.places(rng, rng.integers(1, 4), reach=0.75)
        _tangles(blood, field, rng, places, reach=0.11, count=13)
    if boat:
        _boat_haemorrhage(blood, field, rng)
    if vitreous:
        np.maximum(blood, _vitreous_haemorrhage(field, rng), out=blood)
    if (at_disc or elsewhere) and rng.random() < 0.5:
        return _scar(field, rng)
    return None


def _boat_haemorrhage(blood: np.ndarray, field: Field, rng: np.random.Generator) -> None:
    """Blood that has settled before the retina: level above, curved below."""
    for centre in field.places(rng, 1 if rng.random() < 0.8 else 2, reach=0.7):
        angle = np.linspace(0, np.pi, 28)
        rough = 1 + np.convolve(rng.normal(0, 0.1, 30), (0.3, 0.4, 0.3), "valid")
        width, depth = rng.uniform(0.10, 0.28), rng.uniform(0.09, 0.2)
        top = np.array([[x, 0.006 * rng.normal()] for x in np.linspace(-1, 1, 12)[1:-1] * width])
        below = np.stack([width * np.cos(angle), depth * np.sin(angle) ** 0.8 * rough], -1)
        layer = field.layer()
        fill(layer, [field.to_pixels(centre + np.concatenate([below, top]))], rng.uniform(215, 250))
        np.maximum(blood, cv2.GaussianBlur(layer, (0, 0), 0.007 * field.radius), out=blood)


def _vitreous_haemorrhage(field: Field, rng: np.random.Generator) -> np.ndarray:
    """A dark red cloud without edges, denser below."""
    clouds = cv2.resize(rng.normal(size=(5, 6)).astype(np.float32), (64, 48), interpolation=cv2.INTER_CUBIC)
    clouds += 0.4 * cv2.resize(rng.normal(size=(12, 16)).astype(np.float32), (64, 48), interpolation=cv2.INTER_CUBIC)
    lower = np.linspace(-1.6, 1.2, 48, dtype=np.float32)[:, None]
    density = 2 / (1 + np.exp(-2 * (clouds + lower + rng.uniform(-1.6, -0.5)))) * rng.uniform(65, 105)
    return cv2.resize(
        np.minimum(density, 235).astype(np.uint8), (field.width, field.height), interpolation=cv2.INTER_LINEAR
    )


def _scar(field: Field, rng: np.random.Generator) -> np.ndarray:
    """Pale bands of fibrous tissue that arch from the optic disc."""
    count = rng.integers(2, 5)
    start = np.asarray(field.disc) + rng.normal(0, field.disc_radius, (count, 2))
    heading, bend = rng.uniform(-1.9, 1.9, count), rng.uniform(-1.2, 1.2, count)
    paths = winding_paths(rng, start, heading, rng.uniform(0.3, 0.8, count), bend, 0.25)
    widths = np.linspace(0.07, 0.015, 24) * rng.uniform(0.5, 1.2, (count, 1))
    layer = field.layer()
    draw_ribbons(layer, field, paths, widths, rng.uniform(90, 160, count))
    return cv2.GaussianBlur(layer, (0, 0), 0.014 * field.radius)
