"""The same picture under two names, saved anew, scaled, brightened, mirrored or turned: found by what it shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medic.data.parallel import each
from medic.data.stores import Store

SIDE = 64
"""Pixels of a fingerprint's side: enough for vessels and ribs, few enough to hold those of 100,000 images (410 MB)."""
SMALLEST = 48
"""Pixels of an image's longer side below which none is compared: digits at 28 pixels look alike by chance."""
ALIKE = 0.9
"""Correlation of two fingerprints from which on they are one picture. Measured on real sets: of different pictures the
most alike have 0.61 (fundus photographs, dermoscopy), 0.56 (chest X-rays) and 0.78 (those at 64 pixels, where they are
the next exposure of the same patient); drawn eyes reach 0.88. Saved as JPEG of quality 40, halved, brightened or turned
by a degree, nearly every picture keeps 0.9 and more; cut by 2 % at each edge, most lose it."""

TURNS = ("", "mirrored left to right", "mirrored top to bottom", "turned by 180 degrees")
"""How the second of a pair lies to the first; as it is, first of all."""

_BAND = 8
_MOST_BITS = 12
_ROUGHLY_ALIKE = 0.8
_STEPS = 31  # of int8 for one local standard deviation: four of them fit
_FEATURELESS = 0.15 * _STEPS
_CALMING = 20
_CHANGED = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])  # whether rows and columns run the other way round, a turn


@dataclass(frozen=True)
class Pair:
    """Two images that show one picture.

    Attributes:
        first: position of one among the fingerprints.
        second: position of the other, which is larger.
        turn: how the second lies to the first, as in ``TURNS``.
        correlation: of their fingerprints, 0.9 to 1.
    """

    first: int
    second: int
    turn: str
    correlation: float


def fingerprint(pixels: np.ndarray) -> np.ndarray | None:
    """What an image shows, freed from brightness, contrast, size and shading.

    The picture is made grey and scaled to 64 x 64; each pixel then counts by how far it is from its surroundings' mean,
    in their standard deviations (local contrast normalisation; Jarrett et al., ICCV 2009, p. 2146). So the rim of a
    fundus photograph, which all photographs of one camera share, weighs no more than its vessels do.

    Args:
        pixels: uint8 (H, W, 3) RGB.

    Returns:
        int8 (64, 64), 31 to a standard deviation; None for an image too small or too plain to be told from others.
    """
    if max(pixels.shape[:2]) < SMALLEST:
        return None
    small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    detail = small.astype(np.float32)
    detail -= cv2.GaussianBlur(detail, (0, 0), 4)
    # Two grey levels more than the surroundings' deviation, or the noise of black areas would count as a picture.
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4)) + 2
    steps = np.rint(np.clip(detail * _STEPS, -127, 127)).astype(np.int8)
    return steps if steps.std() > _FEATURELESS else None


def near_duplicates(fingerprints: np.ndarray) -> list[Pair]:
    """Find the pairs among N images that show one picture, also mirrored or turned by 180 degrees.

    In three steps, each for what the one before left. Signs of 64 low frequencies of the discrete cosine transform,
    less those of the set's mean picture, make a hash of 64 bits; mirroring changes the signs of odd frequencies and so
    needs no further picture. All pairs of hashes are compared, in blocks (100,000 images: about 5,000,000,000 pairs in
    four positions). Pairs that differ by 12 bits or fewer are compared by the frequencies' values, then by pixels.

    What all pictures of a set share, such as a thorax, tells nothing about two of them: their mean is taken away first,
    reckoned with 20 plain pictures more, so that in a handful it is not the very pictures that are compared.

    Args:
        fingerprints: int8 (N, 64, 64), as ``fingerprint`` gives them.

    Returns:
        The pairs with a correlation of 0.9 or more, in the order of the fingerprints; each pair once.
    """
    if len(fingerprints) < 2:
        return []
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(fingerprints)) / (len(fingerprints) + _CALMING)
    mean = mean.astype(np.float32)
    waves = _waves()
    spectra = np.concatenate([waves @ block.astype(np.float32) @ waves.T for block in _blocks(fingerprints)])
    usual = waves @ mean @ waves.T
    turned = [(spectra * _signs(turn) - usual).reshape(len(spectra), -1) for turn in range(len(TURNS))]
    hashes = [np.packbits(values > 0, axis=1).view(np.uint64).ravel() for values in turned]
    for values in turned:
        values /= np.linalg.norm(values, axis=1, keepdims=True) + 1e-6

    def compare(start: int) -> list[Pair]:
        rows = np.arange(start, min(start + 256, len(fingerprints)))
        pairs: dict[tuple[int, int], Pair] = {}
        for turn, name in enumerate(TURNS):
            first, second = _near(hashes[0][rows], hashes[turn], start)
            alike = np.einsum("ij,ij->i", turned[0][first], turned[turn][second]) >= _ROUGHLY_ALIKE
            first, second = first[alike], second[alike]
            for at in range(0, len(first), 1024):
                one, other = first[at : at + 1024], second[at : at + 1024]
                found = _correlations(fingerprints[one], fingerprints[other], turn, mean)
                for a, b, value in zip(one, other, found, strict=True):
                    if value >= ALIKE and ((a, b) not in pairs or pairs[a, b].correlation < value):
                        pairs[a, b] = Pair(int(a), int(b), name, min(float(value), 1.0))
        return sorted(pairs.values(), key=lambda pair: (pair.first, pair.second))

    starts = range(0, len(fingerprints), 256)
    return [pair for found in each(compare, starts, title="comparing, 256 images a step") for pair in found]


def copy_groups(records: pd.DataFrame, store: Store) -> pd.Series:
    """Find which images show one picture, as ``check`` does: the same bytes, or saved anew, scaled, mirrored, turned.

    Args:
        records: with the column ``image``.
        store: where the images are; one that is absent or cannot be read is a group of its own.

    Returns:
        For each row the name of the first image of its group, which is its own name where there is no copy.
    """
    from medic.data.check.images import stats_of_set

    names = records["image"].tolist()
    stats, _ = stats_of_set(store, names, title="looking for copies")
    first_with = {one.digest: row for row, one in reversed(list(enumerate(stats))) if one.digest}
    same = [(row, first_with[one.digest]) for row, one in enumerate(stats) if one.digest]
    rows = [row for row, one in enumerate(stats) if one.fingerprint is not None]
    pairs = near_duplicates(np.stack([stats[row].fingerprint for row in rows])) if rows else []
    group = connected(len(names), same + [(rows[pair.first], rows[pair.second]) for pair in pairs])
    first = pd.Series(names).groupby(group).first()
    return pd.Series(first.loc[group].to_numpy(), index=records.index, name="group")


def connected(count: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Give what pairs join, directly or through others, one number: int (count,)."""
    one, other = np.array(pairs, int).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(count, count)), directed=False)[1]


def _blocks(fingerprints: np.ndarray, size: int = 4096) -> list[np.ndarray]:
    return [fingerprints[start : start + size] for start in range(0, len(fingerprints), size)]


def _waves() -> np.ndarray:
    """The cosines of the frequencies 1 to 8 over 64 pixels: float32 (8, 64), each of length 1."""
    places = np.pi * (np.arange(SIDE) + 0.5) / SIDE
    return (np.cos(np.outer(np.arange(1, _BAND + 1), places)) * np.sqrt(2 / SIDE)).astype(np.float32)


def _signs(turn: int) -> np.ndarray:
    """Run the other way round, odd frequencies change their sign: float32 (8, 8) of 1 and -1."""
    odd = np.arange(1, _BAND + 1) % 2
    rows, columns = (np.where(odd * changed, -1, 1) for changed in _CHANGED[turn])
    return np.outer(rows, columns).astype(np.float32)


def _near(rows: np.ndarray, hashes: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of those pairs, the second behind the first, whose hashes differ by few bits.

    Args:
        rows: uint64, the hashes from position ``start`` on.
        hashes: uint64, all of them, turned.
        start: position of the first row.
    """
    first, second = [], []
    for at in range(start, len(hashes), 4096):
        bits = np.bitwise_count(rows[:, None] ^ hashes[None, at : at + 4096])
        one, other = np.divmod(np.flatnonzero(bits.ravel() <= _MOST_BITS), bits.shape[1])
        behind = other + at > one + start
        first.append(one[behind] + start)
        second.append(other[behind] + at)
    return np.concatenate(first), np.concatenate(second)


def _correlations(one: np.ndarray, other: np.ndarray, turn: int, mean: np.ndarray) -> np.ndarray:
    """Of each two fingerprints, less the mean picture: float (n,)."""
    rows, columns = (slice(None, None, -1 if changed else 1) for changed in _CHANGED[turn])
    parts = []
    for images in (one, other[:, rows, columns]):
        values = (images - mean).reshape(len(images), -1)
        values -= values.mean(axis=1, keepdims=True)
        parts.append(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-6))
    return np.einsum("ij,ij->i", *parts)
