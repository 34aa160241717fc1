"""The same picture under two names, saved anew, scaled, brightened, mirrored or turned: found by what it shows."""

from itertools import chain, product, repeat

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medic.data.check.images import stats_of_set
from medic.data.corrections import written_labels
from medic.data.parallel import each
from medic.data.split import patients_known
from medic.data.stores import Store
from medic.task import CHEST_XRAY, FINDINGS

ALIKE = 0.9
"""Correlation of two fingerprints from which on they are one picture. Of different pictures in the real sets the most
alike have 0.78; nearly every copy saved at JPEG quality 40, halved, brightened or turned by a degree keeps 0.9."""
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


def near_duplicates(fingerprints: np.ndarray) -> pd.DataFrame:
    """Find the pairs among N images that show one picture, also mirrored or turned by 180 degrees.

    Pairs whose perceptual hashes (the signs of 64 low frequencies) differ by 12 bits or fewer are compared by their
    pixels. The mean of all pictures, such as a thorax, is taken away first; 20 plain pictures more are reckoned in, so
    that in a handful it is not the very pictures that are compared.

    Args:
        fingerprints: int8 (N, 64, 64), as ``medic.data.check.images.fingerprint`` gives them.

    Returns:
        The positions ``one`` and ``other``, the ``turn`` of the other, and their ``correlation`` (0.9 to 1); the most
        alike first, each pair once.
    """
    count = len(fingerprints)
    mean = (fingerprints.sum(axis=0, dtype=np.float64) / (count + _CALMING)).astype(np.float32)
    hashes = {turn: np.zeros(count, np.uint64) for turn in TURNS}
    for (turn, view), start in product(TURNS.items(), range(0, count, _BLOCK)):
        signs = _WAVES @ (fingerprints[start : start + _BLOCK][view] - mean) @ _WAVES.T > 0
        hashes[turn][start : start + _BLOCK] = np.packbits(signs.reshape(-1, 64), axis=1).view(np.uint64).ravel()

    def compare(start: int) -> list[tuple[int, int, str, float]]:
        found = []
        for turn, block in product(TURNS, range(start, count, _BLOCK)):
            bits = np.bitwise_count(hashes[""][start : start + 256, None] ^ hashes[turn][None, block : block + _BLOCK])
            one, other = np.divmod(np.flatnonzero(bits <= _MOST_BITS), bits.shape[1]) + np.array([[start], [block]])
            ahead = np.flatnonzero(one < other)
            for at in np.split(ahead, range(1024, len(ahead), 1024)):
                rows = _rows(fingerprints[one[at]], mean), _rows(fingerprints[other[at]][TURNS[turn]], mean)
                values = np.einsum("ij,ij->i", *rows).clip(max=1)
                at, values = at[values >= ALIKE], values[values >= ALIKE]
                found += zip(one[at], other[at], repeat(turn), values, strict=False)
        return found

    found = each(compare, range(0, count, 256), title="comparing, 256 images a step")
    pairs = pd.DataFrame(chain.from_iterable(found), columns=["one", "other", "turn", "correlation"])
    return pairs.sort_values("correlation", ascending=False, kind="stable").drop_duplicates(["one", "other"])


def _rows(images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Images less the mean picture, each a row of mean 0 and length 1, so that products are correlations."""
    rows = (images - mean).reshape(len(images), mean.size)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)


def _alike(stats: pd.DataFrame) -> pd.DataFrame:
    """The copies of each image, the most alike first: positions ``one`` and ``other``, ``finding``, and ``how``."""
    table = stats[["digest"]].assign(at=range(len(stats)))
    same = table[table["digest"] != b""].merge(table, on="digest", suffixes=("_one", "_other"))
    same = pd.DataFrame({"one": same["at_one"], "other": same["at_other"], "finding": "identical", "how": ""})
    at = np.flatnonzero(stats["fingerprint"].notna())
    found = near_duplicates(np.array(stats["fingerprint"].iloc[at].tolist(), np.int8).reshape(-1, 64, 64))
    turn = found["turn"].where(found["turn"] == "", found["turn"] + ", ")
    how = " (" + turn + "correlation " + found["correlation"].map("{:.2f}".format) + ")"
    near = pd.DataFrame({"one": at[found["one"]], "other": at[found["other"]], "finding": "near_duplicate", "how": how})
    both = pd.concat([same, near, near.rename(columns={"one": "other", "other": "one"})], ignore_index=True)
    return both[both["one"] != both["other"]].drop_duplicates(["one", "other"])


def copy_groups(records: pd.DataFrame, store: Store) -> pd.Series:
    """Find which images show one picture, as ``check`` does: the same bytes, or saved anew, scaled, mirrored, turned.

    Returns:
        For each row the name of the first image of its group, which is its own name where there is no copy, or where
        the image is absent or cannot be read.
    """
    stats, _ = stats_of_set(store, records["image"].tolist(), title="looking for copies")
    group = connected(len(records), _alike(stats)[["one", "other"]].to_numpy())
    return records["image"].groupby(group).transform("first").rename("group")


def connected(count: int, pairs: ArrayLike) -> np.ndarray:
    """Give what pairs of positions join, directly or through others, one number: int (count,)."""
    one, other = np.array(pairs, int).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(count, count)), directed=False)[1]


def copies(records: pd.DataFrame, stats: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Return the findings ``identical`` and ``near_duplicate``: image, finding, detail, and the image most like it."""
    names, found = records["image"].to_numpy(), []
    labels = records["class" if "class" in records else "label"].astype(str).to_numpy()
    if set(FINDINGS) <= set(records):
        labels = np.array(written_labels(records, CHEST_XRAY))
    same = {"in another split": records["split"].to_numpy()}
    if patients_known(records):
        same = {"of another patient": records["patient"].to_numpy()} | same
    for (finding, one), others in _alike(stats).groupby(["finding", "one"]):
        at = others["other"].to_numpy()
        said = ", ".join((names[at] + others["how"])[:_NAMED])
        more = f" and {len(at) - _NAMED} more" if len(at) > _NAMED else ""
        notes = [f"same {'bytes' if finding == 'identical' else 'picture'} as {said}{more}"]
        if (labels[at] != labels[one]).any():
            notes.append(f"labels differ ({labels[one]} and {', '.join(sorted({*labels[at]}))})")
        notes += [note for note, values in same.items() if (values[at] != values[one]).any()]
        found.append((names[one], finding, "; ".join(notes), names[at[0]]))
    return found
