"""Synthetic photographs of the retina, drawn from random numbers: no real eye is behind any of them.

A retina is drawn as light travels: the glow of the fundus, the optic disc, deposits, then blood, which absorbs, then
the camera. What a grade shows follows the International Clinical Diabetic Retinopathy scale (Wilkinson et al.,
Ophthalmology 110, 2003); grades that are neighbours overlap, as in photographs. Places are in field units: 0 is the
centre of the round field, 1 its radius with hospital 1's camera, x grows from the nose to the temple, y downwards.
"""

import cv2
import numpy as np

from medic.sample.strokes import Array, Canvas, Rng, winding_paths

# the cameras of hospitals 1 and 2
TINT = {1: (1, 1, 1), 2: (0.88, 1.06, 1.25)}  # gain of red, green and blue
GAMMA = {1: 1, 2: 0.85}  # exponent of the brightness (0-1); below 1 is brighter
BLUR = {1: 0, 2: 0.0025}  # standard deviation of the focus, in widths of the image
ZOOM = {1: 1, 2: 0.86}  # size of what is shown; below 1 the field of view is wider

DEPOSITS = {"scar": (222, 206, 150), "cotton wool spot": (232, 214, 170), "exudate": (250, 222, 105)}
BLOOD = ("vitreous haemorrhage", "preretinal haemorrhage", "haemorrhage", "shunt", "new vessels", "microaneurysm")
LESIONS = (*DEPOSITS, *BLOOD)
"""In a mask, n marks the n-th of these, counted from 1. Deposits have a colour; blood absorbs light."""

# looks of real photographs, RGB of 0-1: brown-orange, red, pale pink, ochre
LOOKS = np.array([(0.68, 0.36, 0.13), (0.74, 0.29, 0.09), (0.82, 0.49, 0.34), (0.70, 0.42, 0.13)])

# the main vessels, veins and arteries in turn: two arcades, four to the nose, four small ones
HEADING = np.radians([-86, -74, 84, 72, -128, -142, 132, 146, 168, -20, 24, 8])
BEND = np.radians([112, 92, -112, -92, -22, -16, 24, 16, 10, 26, -22, 4])
LENGTH = np.array([1.75, 1.65, 1.75, 1.65, 0.8, 0.75, 0.8, 0.75, 0.5, 0.5, 0.5, 0.3])
CALIBRE = np.array([1, 0.74, 1, 0.74, 0.62, 0.5, 0.62, 0.5, 0.4, 0.34, 0.34, 0.28])


class Retina(Canvas):
    """One eye before the camera: its looks, where its field and landmarks lie, and what is drawn at random on it."""

    def __init__(self, person: list[int] | int, eye: str, rng: Rng, size: tuple, hospital: int):
        both = np.random.default_rng(person)  # what the two eyes of a person have in common
        self.colour = both.dirichlet(np.full(len(LOOKS), 0.5)) @ LOOKS
        self.mottle = both.uniform(0.035, 0.08)  # contrast of the pigment's texture
        self.disc_radius = both.uniform(0.12, 0.155)
        self.cup = both.uniform(0.3, 0.65)  # radius of the optic disc's pale cup, in disc radii
        self.calibre = both.uniform(0.022, 0.029)  # width of the widest vein
        self.tortuosity = both.uniform(0.1, 0.3)  # how much vessels wind, radians
        field = 0.36 if both.random() < 0.15 else both.uniform(0.41, 0.45)  # radius of the field, in widths
        self.rng, self.side = rng, 1 if eye == "left" else -1
        self.course = np.random.default_rng([*both.integers(2**31, size=2), self.side + 1])  # of the vessels
        self.rim = min(field * size[0], 0.6 * size[1])  # the same in pixels; it may be cut above and below
        centre = 0.5 * np.array(size) + rng.normal(0, (0.008, 0.006)) * size
        super().__init__(size, centre, self.rim * ZOOM[hospital], mirror=self.side)
        self.disc = rng.uniform((-0.66, -0.12), (-0.46, 0.12))
        self.macula = self.disc + rng.uniform((4.7 * self.disc_radius, 0.04), (5.3 * self.disc_radius, 0.12))

    def places(self, count: int, reach: float = 0.93) -> Array:
        """Return at most ``count`` random visible places off the optic disc, (n, 2)."""
        points = self.rng.uniform(-reach, reach, (count * 4 + 16, 2))
        points[:, 1] *= min(1.0, 0.5 * self.size[1] / self.radius)
        off_disc = np.hypot(*(points - self.disc).T) > 1.5 * self.disc_radius
        return points[(np.hypot(*points.T) < reach) & off_disc][:count]

    def marks(self, places: Array, radius: tuple, value: tuple, irregular: float, stretch: float) -> Array:
        """Return a layer of spots: the radii's median and log-spread, the range of values, their roughness."""
        radii = radius[0] * np.exp(self.rng.normal(0, radius[1], len(places)).clip(-1.2, 1.2))
        values = self.rng.uniform(*value, len(places))
        return self.spots(self.rng, places, radii, values, (irregular, stretch))


def fundus_photograph(
    grade: int, eye: str, rng: Rng, size: tuple[int, int], *, person: list[int] | None = None, hospital: int = 1
) -> tuple[Array, Array]:
    """Draw one photograph of a retina, uint8 (height, width, 3) RGB, black outside the round field, and its mask.

    ``grade`` is 0-4 on the International Clinical Diabetic Retinopathy scale; the optic disc lies left of the macula in
    the "left" ``eye``. From ``rng`` comes what differs between two photographs: lesions, pose, focus, exposure, grain;
    ``person`` is the seed of what both eyes have in common, None draws one. ``size`` is (width, height), at least 32
    pixels; hospital 1 or 2 takes it. The mask, uint8 (height, width), is n where the n-th of ``LESIONS`` lies, else 0.
    """
    retina = Retina(int(rng.integers(2**31)) if person is None else person, eye, rng, size, hospital)
    pixels, lesions = _optic_disc(_glow(retina), retina), _lesions(grade, retina)
    mask, blood = retina.layer(), _vessels(retina, beading=rng.uniform(0.25, 0.5) if grade == 3 else 0.0)
    for number, name in enumerate(LESIONS, 1):
        layer = lesions.get(name, retina.layer())
        mask[layer > 40] = number
        if name in DEPOSITS:
            pixels += layer[..., None] / np.float32(255) * (np.float32(DEPOSITS[name]) - pixels)
        else:
            blood = np.maximum(blood, layer)
    # blood absorbs green and blue at once, red only where there is much of it
    depth = blood[..., None] / np.float32(255)
    pixels *= np.exp(-np.concatenate([0.75 * depth**2, 1.6 * depth, 1.25 * depth], axis=2))
    pixels, inside = _photograph(pixels, retina, hospital)
    return pixels, np.where(inside > 127, mask, 0).astype(np.uint8)


def _glow(retina: Retina) -> Array:
    """Paint the retina without vessels, at a quarter of the resolution: illumination, pigment, macula; float 0-255."""
    rng, shape = retina.rng, (max(retina.size[1] // 4, 8), max(retina.size[0] // 4, 8))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x = ((x + 0.5) * retina.size[0] / shape[1] - retina.centre[0]) / (retina.side * retina.radius)
    y = ((y + 0.5) * retina.size[1] / shape[0] - retina.centre[1]) / retina.radius

    def spot(centre: Array, size: float) -> Array:
        return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * size**2))

    def texture(rows: int) -> Array:
        grid = rng.standard_normal((rows, rows * 4 // 3), np.float32)
        return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)

    slope, mottle = rng.normal(0, 0.14, 2), retina.mottle
    light = 1 - rng.uniform(0.12, 0.48) * (x**2 + y**2) + slope[0] * x + slope[1] * y
    light += 0.05 * texture(4) + mottle * (0.3 * texture(10) + 0.4 * texture(24) + 0.5 * texture(60))
    light += 0.16 * spot(retina.disc, 2.2 * retina.disc_radius)
    light *= 1 - rng.uniform(0.12, 0.3) * spot(retina.macula, 0.26) - rng.uniform(0.2, 0.4) * spot(retina.macula, 0.08)
    # the rim and the shades are redder: dim light comes out of the choroid
    glow = light.clip(0.02)[..., None] ** (0.8, 1.2, 1.4) * retina.colour * rng.uniform(0.95, 1.05, 3)
    if rng.random() < 0.35:  # the lens' reflection, a bluish haze near the middle
        haze = spot(rng.normal(0, 0.12, 2), rng.uniform(0.06, 0.14))[..., None]
        glow += rng.uniform(0.04, 0.14) * haze * (0.7, 0.8, 1.0)
    if rng.random() < 0.15:  # stray light: a pale crescent at the rim
        turn = rng.uniform(0, 2 * np.pi)
        crescent = np.clip(np.hypot(x - 0.12 * np.cos(turn), y - 0.12 * np.sin(turn)) - 0.95, 0, 0.3)
        glow += rng.uniform(1, 2.6) * crescent[..., None] * (1.0, 0.85, 0.6)
    return cv2.resize((glow.clip(0, 1) * 255).astype(np.float32), retina.size)


def _optic_disc(pixels: Array, retina: Retina) -> Array:
    """Paint the pale disc and its paler cup."""
    rng, pallor = retina.rng, retina.rng.uniform(0.0, 0.8)
    axes = retina.disc_radius * retina.radius * rng.uniform((0.86, 1.0), (0.95, 1.1))
    rim = np.array([252, 172 + 40 * pallor, 78 + 75 * pallor]) * rng.uniform(0.9, 1.0)
    cup = np.array([255, 218 + 14 * pallor, 140 + 50 * pallor])
    centre = retina.to_pixels(retina.disc)
    left, top = np.floor(centre - 4 * axes).astype(int).clip(0)  # farther away the disc adds nothing
    right, bottom = np.ceil(centre + 4 * axes).astype(int)
    part = pixels[top:bottom, left:right]
    y, x = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    x, y = (x + left - centre[0]) / axes[0], (y + top - centre[1]) / axes[1]
    uneven = 1 + 0.05 * np.sin(np.arctan2(y, x) * 2 + rng.uniform(0, 6))
    over = 0.92 / (1 + np.exp((np.hypot(x, y) * uneven - 1) * rng.uniform(12, 24)))
    inner = 0.8 / (1 + np.exp((np.hypot(x - 0.12 * retina.side, y) - retina.cup) * 9))
    part += over[..., None] * (rim + inner[..., None] * (cup - rim) - part)
    return pixels


def _vessels(retina: Retina, beading: float) -> Array:
    """Draw veins and arteries that leave the optic disc, arch round the macula, branch and taper."""
    rng = retina.course
    heading = HEADING + rng.normal(0, 0.18, len(HEADING))
    bend, length = BEND * rng.uniform(0.72, 1.2, len(BEND)), LENGTH * rng.uniform(0.9, 1.1, len(LENGTH))
    size, vein = CALIBRE, np.arange(len(CALIBRE)) % 2 == 0
    start, t, levels = retina.disc + rng.normal(0, 0.14 * retina.disc_radius, (12, 2)), np.linspace(0, 1, 48), []
    for level, children in enumerate((6, 3, 1)):
        paths = winding_paths(rng, start, heading, length, bend, retina.tortuosity * (1 + 0.4 * level), points=48)
        beads = np.sin(rng.uniform(60, 90, (len(paths), 1)) * length[:, None] * t) * np.minimum(1, 3 * t)
        widths = retina.calibre * size[:, None] * (1 - 0.62 * t) * (1 + beading * (level < 2) * vein[:, None] * beads)
        # nothing crosses the fovea: a vessel ends before it
        reach = np.minimum.accumulate(np.linalg.norm(paths - retina.macula, axis=-1) > 0.13, axis=1).sum(axis=1)
        paths = paths[np.arange(len(paths))[:, None], np.minimum(np.arange(48), np.maximum(reach[:, None], 2) - 1)]
        levels.append((paths, widths, np.where(vein, 132, 100) - 10 * level))
        # children leave to alternate sides, then turn to run beside their parent
        parent = np.repeat(np.arange(len(paths)), children)
        at = (np.tile(np.arange(children), len(paths)) + rng.uniform(0.1, 0.9, len(parent))) / children * 0.86 + 0.14
        step, side = np.clip(at * 44, 3, 46).astype(int), np.where(np.arange(len(parent)) % 2, 1, -1)
        start, along = paths[parent, step], paths[parent, step] - paths[parent, step - 2]
        heading = np.arctan2(along[:, 1], along[:, 0]) + side * rng.uniform(0.45, 1.0, len(parent))
        bend = -side * rng.uniform(-0.1, 0.8, len(parent))
        length = length[parent] * rng.uniform(0.22, 0.5, len(parent)) * (1 - 0.35 * at)
        size, vein = size[parent] * (1 - 0.62 * at) * rng.uniform(0.45, 0.75, len(parent)), vein[parent]
    layer = retina.layer()
    for level in reversed(levels):
        retina.ribbons(*level, on=layer)
    return layer


def _lesions(grade: int, retina: Retina) -> dict[str, Array]:
    """Draw what a retina of this grade shows: layers by name of ``LESIONS``, those that there are, 0-255."""
    rng, severity = retina.rng, retina.rng.beta(*((1.3, 1.6) if grade < 3 else (2, 1.5)))
    if grade == 0:
        return {}
    dots = 1 + rng.poisson(3.5) if grade == 1 else 2 + rng.poisson(10 * severity)
    lesions = {"microaneurysm": retina.marks(retina.places(dots, 0.8), (0.0105, 0.15), (110, 180), 0.15, 0.2)}
    if grade == 1:
        return lesions
    if grade == 3:  # many haemorrhages in each of the four quadrants round the optic disc and macula
        places = retina.places(300)
        quadrant, count = 2 * (places[:, 0] > -0.1) + (places[:, 1] > 0), rng.poisson(3.5 + 9 * severity, 4)
        places = np.concatenate([places[quadrant == number][: count[number]] for number in range(4)])
        lesions["shunt"] = _tangles(retina, retina.places(rng.integers(2, 6), 0.7), reach=0.09, count=5)
    else:
        places = retina.places(1 + rng.poisson(1 + 11 * severity))
    flames = len(places) // 4  # drawn out along the nerve fibres; the others are dots and blots
    blots = retina.marks(places[flames:], (0.0165, 0.42), (95, 205), 0.22, 0.2)
    flames = retina.marks(places[:flames], (0.0165, 0.42), (95, 205), 0.3, 0.6)
    lesions["haemorrhage"] = retina.blurred(np.maximum(blots, flames), 0.005)
    if grade == 4:
        lesions |= _proliferative(retina)
    if rng.random() < 0.55:  # clusters of yellow spots
        sites = [
            centre + rng.normal(0, rng.uniform(0.04, 0.1), (rng.integers(8, 22 + int(50 * severity)), 2))
            for centre in retina.places(1 + rng.poisson(0.6 + 2.4 * severity), 0.65)
        ]
        spots = retina.marks(np.concatenate(sites), (0.0075, 0.45), (140, 255), 0.3, 0.3)
        lesions["exudate"] = retina.blurred(spots, 0.0022)
    if rng.random() < (0.35, 0.6, 0.35)[grade - 2]:  # a few pale patches with feathered edges
        places = retina.places(1 + rng.poisson(3 if grade > 2 else 1.5), 0.75)
        lesions["cotton wool spot"] = retina.blurred(retina.marks(places, (0.038, 0.2), (110, 190), 0.3, 0.35), 0.011)
    return lesions


def _proliferative(retina: Retina) -> dict[str, Array]:
    """Draw new vessels, blood before the retina or in the vitreous (at least one of these), perhaps scars."""
    rng, lesions = retina.rng, {}
    at_disc, elsewhere, boat, vitreous = rng.random(4) < (0.5, 0.45, 0.35, 0.2)
    new = [_tangles(retina, retina.disc[None], reach=1.3 * retina.disc_radius, count=16)] if at_disc else []
    if elsewhere or not (at_disc or boat or vitreous):
        new.append(_tangles(retina, retina.places(rng.integers(1, 4), 0.75), reach=0.11, count=13))
    if new:
        lesions["new vessels"] = np.max(new, axis=0)
    if new and rng.random() < 0.5:  # pale bands that arch from the optic disc
        count = rng.integers(2, 5)
        start = retina.disc + rng.normal(0, retina.disc_radius, (count, 2))
        heading, length, bend = rng.uniform((-1.9, 0.3, -1.2), (1.9, 0.8, 1.2), (count, 3)).T
        widths = np.linspace(0.07, 0.015, 24) * rng.uniform(0.5, 1.2, (count, 1))
        bands = winding_paths(rng, start, heading, length, bend, 0.25), widths, rng.uniform(90, 160, count)
        lesions["scar"] = retina.blurred(retina.ribbons(*bands), 0.014)
    if boat:  # blood that has settled before the retina: level above, curved below
        angle = np.linspace(0, np.pi, 28)
        shape = np.stack([np.cos(angle), np.sin(angle) ** 0.8], -1) * rng.uniform(0.09, (0.28, 0.2))
        shape[:, 1] *= 1 + np.convolve(rng.normal(0, 0.1, 30), (0.3, 0.4, 0.3), "valid")
        layer = retina.fill(retina.to_pixels(retina.places(1, 0.7)[:, None] + shape), rng.uniform(215, 250))
        lesions["preretinal haemorrhage"] = retina.blurred(layer, 0.007)
    if vitreous:  # a dark red cloud without edges, denser below
        cloud = cv2.resize(rng.standard_normal((6, 8), np.float32), (64, 48), interpolation=cv2.INTER_CUBIC)
        cloud = cloud + np.linspace(-1.6, 1.2, 48)[:, None] + rng.uniform(-1.6, -0.5)
        density = (rng.uniform(130, 210) / (1 + np.exp(-2 * cloud))).astype(np.uint8)
        lesions["vitreous haemorrhage"] = cv2.resize(density, retina.size)
    return lesions


def _tangles(retina: Retina, places: Array, reach: float, count: int) -> Array:
    """Draw fine winding vessels that set out from each place: shunts (IRMA) when few, new vessels when many."""
    rng = retina.rng
    start = np.repeat(places, count, axis=0) + rng.normal(0, 0.2 * reach, (len(places) * count, 2))
    heading, length, bend, wiggle = rng.uniform((0, 1.2, 1.5, 0.5), (6.28, 3, 5.5, 1.1), (len(start), 4)).T
    bend *= rng.choice([-1, 1], len(start))
    paths = winding_paths(rng, start, heading, reach * length, bend, wiggle, points=30)
    return retina.ribbons(paths, 0.0055, rng.uniform(95, 150, len(paths)))


def _photograph(pixels: Array, retina: Retina, hospital: int) -> tuple[Array, Array]:
    """Focus, haze, exposure, grain and colours of the camera; also return the round field, 0-255."""
    rng, (width, height), inside = retina.rng, retina.size, retina.layer()
    pixels = cv2.GaussianBlur(pixels, (0, 0), max(retina.rim * (0.0022 + 0.008 * rng.beta(0.8, 4)), 0.3))
    haze, exposure = 0.3 * rng.beta(0.6, 4), rng.uniform(0.72, 1.18)
    pixels = exposure * (pixels * (1 - haze) + 255 * haze * np.float32([0.72, 0.6, 0.48]))
    grain = rng.standard_normal((height // 2, width // 2), np.float32) * rng.uniform(0.8, 2.2)
    pixels = (pixels + cv2.resize(grain, (width, height))[..., None]).clip(0, 255).astype(np.uint8)
    if BLUR[hospital]:
        pixels = cv2.GaussianBlur(pixels, (0, 0), BLUR[hospital] * width)
    curve = 255 * ((np.arange(256) / 255) ** GAMMA[hospital])[:, None] * TINT[hospital]
    pixels = cv2.LUT(pixels, np.rint(curve).clip(0, 255).astype(np.uint8)[None])
    x, y, radius = (round(16 * float(value)) for value in (*retina.centre, retina.rim))
    cv2.circle(inside, (x, y), radius, 255, -1, cv2.LINE_AA, 4)
    inside = cv2.GaussianBlur(inside, (0, 0), max(0.004 * retina.rim, 0.3))
    return cv2.multiply(pixels, cv2.merge([inside] * 3), scale=1 / 255), inside
