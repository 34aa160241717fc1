"""The same picture under two names, saved anew, scaled, brightened, mirrored or turned: found by what it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medic.data.check.images import ImageStats, stats_of_set
from medic.data.parallel import each
from medic.data.split import patients_known
from medic.data.stores import Store
from medic.task import FINDINGS, NO_FINDING

ALIKE = 0.9
"""Correlation of two fingerprints from which on they are one picture. Measured on real sets: of different pictures the
most alike have 0.61 (fundus photographs, dermoscopy), 0.56 (chest X-rays) and 0.78 (those at 64 pixels, where they are
the next exposure of the same patient); drawn eyes reach 0.88. Saved as JPEG of quality 40, halved, brightened or turned
by a degree, nearly every picture keeps 0.9 and more; cut by 2 % at each edge, most lose it."""
TURNS = {
    "": np.s_[:, :, :],
    "mirrored left to right": np.s_[:, :, ::-1],
    "mirrored top to bottom": np.s_[:, ::-1],
    "turned by 180 degrees": np.s_[:, ::-1, ::-1],
}
"""How the second of a pair lies to the first, and the view of the second that lies as the first does."""

_WAVES = dct(np.eye(64, dtype=np.float32), axis=0)[1:9]  # the cosines of the frequencies 1 to 8 over 64 pixels
_CALMING = 20
_BLOCK = 4096
_MOST_BITS = 12
_NAMED = 5  # copies that a sentence names, before it only counts


class Pair(NamedTuple):
    """Two fingerprints, by position, that show one picture; how the second lies, and their correlation, 0.9 to 1."""

    first: int
    second: int
    turn: str
    correlation: float


def near_duplicates(fingerprints: np.ndarray) -> list[Pair]:
    """Find the pairs among N images that show one picture, also mirrored or turned by 180 degrees.

    A perceptual hash holds the signs of 64 low frequencies of the discrete cosine transform. Pairs whose hashes differ
    by 12 bits or fewer are compared by their pixels. What all pictures of a set share, such as a thorax, tells nothing
    about two of them: their mean is taken away first, reckoned with 20 plain pictures more, so that in a handful it is
    not the very pictures that are compared.

    Args:
        fingerprints: int8 (N, 64, 64), as ``medic.data.check.images.fingerprint`` gives them.

    Returns:
        The pairs with a correlation of 0.9 or more, in the order of the fingerprints; each pair once.
    """
    count = len(fingerprints)
    mean = (fingerprints.sum(axis=0, dtype=np.float64) / (count + _CALMING)).astype(np.float32)
    hashes = {turn: np.zeros(count, np.uint64) for turn in TURNS}
    for start in range(0, count, _BLOCK):
        block = fingerprints[start : start + _BLOCK]
        for turn, view in TURNS.items():
            signs = _WAVES @ (block[view] - mean) @ _WAVES.T > 0
            hashes[turn][start : start + _BLOCK] = np.packbits(signs.reshape(-1, 64), axis=1).view(np.uint64).ravel()

    def compare(start: int) -> list[Pair]:
        best: dict[tuple[int, int], Pair] = {}
        for turn, block in product(TURNS, range(start, count, _BLOCK)):
            bits = np.bitwise_count(hashes[""][start : start + 256, None] ^ hashes[turn][None, block : block + _BLOCK])
            first, second = np.divmod(np.flatnonzero(bits <= _MOST_BITS), bits.shape[1]) + np.array([[start], [block]])
            behind = np.flatnonzero(second > first)
            for at in np.split(behind, range(1024, len(behind), 1024)):
                one, other = fingerprints[first[at]], fingerprints[second[at]][TURNS[turn]]
                values = np.einsum("ij,ij->i", _rows(one, mean), _rows(other, mean))
                for row, value in zip(at[values >= ALIKE], values[values >= ALIKE], strict=True):
                    pair = Pair(int(first[row]), int(second[row]), turn, min(float(value), 1.0))
                    best[pair[:2]] = max(best.get(pair[:2], pair), pair, key=lambda found: found.correlation)
        return [best[key] for key in sorted(best)]

    starts = range(0, count, 256)
    return [pair for found in each(compare, starts, title="comparing, 256 images a step") for pair in found]


def _rows(images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Images less the mean picture, each a row of mean 0 and length 1, so that products are correlations."""
    rows = (images - mean).reshape(len(images), mean.size)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)


def _pairs(stats: Sequence[ImageStats]) -> list[Pair]:
    """Pairs by the images' positions."""
    rows = [row for row, one in enumerate(stats) if one.fingerprint is not None]
    if len(rows) < 2:
        return []
    found = near_duplicates(np.stack([stats[row].fingerprint for row in rows]))
    return [pair._replace(first=rows[pair.first], second=rows[pair.second]) for pair in found]


def _same_bytes(stats: Sequence[ImageStats]) -> list[list[int]]:
    """Groups of two or more positions whose files are the same."""
    groups = defaultdict(list)
    for row, one in enumerate(stats):
        groups[one.digest].append(row)
    return [rows for digest, rows in groups.items() if digest and len(rows) > 1]


def copy_groups(records: pd.DataFrame, store: Store) -> pd.Series:
    """Find which images show one picture, as ``check`` does: the same bytes, or saved anew, scaled, mirrored, turned.

    Args:
        records: with the column ``image``.
        store: where the images are; one that is absent or cannot be read is a group of its own.

    Returns:
        For each row the name of the first image of its group, which is its own name where there is no copy.
    """
    names = records["image"].tolist()
    stats, _ = stats_of_set(store, names, title="looking for copies")
    same = [(rows[0], row) for rows in _same_bytes(stats) for row in rows[1:]]
    group = connected(len(names), same + [pair[:2] for pair in _pairs(stats)])
    return pd.Series(names, records.index, name="group").groupby(group).transform("first")


def connected(count: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Give what pairs join, directly or through others, one number: int (count,)."""
    one, other = np.array(pairs, int).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(count, count)), directed=False)[1]


def copies(records: pd.DataFrame, stats: Sequence[ImageStats]) -> list[tuple[str, str, str, str]]:
    """Return the findings ``identical`` and ``near_duplicate``: image, finding, detail, and the image most like it."""
    names = records["image"].tolist()
    like: dict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
    for rows in _same_bytes(stats):
        for row in rows:
            like["identical", row] = [(other, names[other]) for other in rows if other != row]
    for one, other, turn, correlation in sorted(_pairs(stats), key=lambda pair: -pair.correlation):
        if stats[one].digest != stats[other].digest:
            how = f" ({f'{turn}, ' if turn else ''}correlation {correlation:.2f})"
            like["near_duplicate", one].append((other, names[other] + how))
            like["near_duplicate", other].append((one, names[one] + how))
    known, labels, found = patients_known(records), _labels(records), []
    patients, splits = records["patient"].tolist(), records["split"].tolist()
    for finding, row in sorted(like):
        others, said = zip(*like[finding, row], strict=True)
        more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        notes = [f"same {'bytes' if finding == 'identical' else 'picture'} as {', '.join(said[:_NAMED])}{more}"]
        theirs = {labels[other] for other in others}
        if theirs != {labels[row]}:
            notes.append(f"labels differ ({labels[row]} and {', '.join(sorted(theirs))})")
        if known and len({patients[at] for at in (row, *others)}) > 1:
            notes.append("of another patient")
        if len({splits[at] for at in (row, *others)}) > 1:
            notes.append("in another split")
        found.append((names[row], finding, "; ".join(notes), names[others[0]]))
    return found


def _labels(records: pd.DataFrame) -> list[str]:
    """What each row says the image shows: its findings, where the table has them, otherwise its class."""
    if set(FINDINGS) <= set(records):
        present = records[list(FINDINGS)] == 1
        return ["|".join(present.columns[row]) or NO_FINDING for row in present.to_numpy()]
    return records["class" if "class" in records else "label"].astype(str).tolist()
