"""The signs of a pigmented skin lesion by the ABCD rule of dermatoscopy, from which synthetic lesions are drawn.

The rule (Nachbar et al., Journal of the American Academy of Dermatology 30(4), 1994, p. 551) counts what is seen
through a dermoscope and weighs it to a total dermatoscopy score: above 5.45 a lesion is taken for a melanoma, below
4.75 for a benign one, in between it is suspicious.
"""

from dataclasses import dataclass

import numpy as np

from medic.errors import MedicError

COLOURS = ("light brown", "dark brown", "black", "red", "white", "blue-grey")
STRUCTURES = ("network", "structureless", "streaks", "dots", "globules")
WEIGHTS = {"asymmetry": 1.3, "border": 0.1, "colours": 0.5, "structures": 0.5}
BENIGN_BELOW, MALIGNANT_ABOVE = 4.75, 5.45  # total dermatoscopy scores

# How often a lesion shows each sign, at an atypia of 0 and of 1; between them in proportion. The rates are made up.
_COLOUR_RATES = {
    "light brown": (0.85, 0.92),
    "dark brown": (0.75, 0.97),
    "black": (0.06, 0.75),
    "red": (0.10, 0.50),
    "white": (0.03, 0.50),
    "blue-grey": (0.05, 0.80),
}
_STRUCTURE_RATES = {
    "network": (0.75, 0.85),
    "structureless": (0.30, 0.90),
    "streaks": (0.02, 0.70),
    "dots": (0.30, 0.85),
    "globules": (0.45, 0.80),
}
_ATYPIA = {False: (1.1, 5.2), True: (5.2, 1.1)}  # of the beta distribution, benign and malignant: they overlap


@dataclass(frozen=True)
class Signs:
    """What the ABCD rule counts in one lesion.

    Attributes:
        asymmetry: axes about which contour, colours and structures differ, 0-2.
        border: of eight equal segments, those in which the pigment ends abruptly, 0-8.
        colours: one to six of ``COLOURS``.
        structures: one to five of ``STRUCTURES``.

    Raises:
        MedicError: a number out of its range, a name that is unknown or said twice, or none.
    """

    asymmetry: int
    border: int
    colours: tuple[str, ...]
    structures: tuple[str, ...]

    def __post_init__(self) -> None:
        def fine(names: tuple[str, ...], known: tuple[str, ...]) -> bool:
            return bool(names) and len(set(names)) == len(names) and set(names) <= set(known)

        numbers = self.asymmetry in range(3) and self.border in range(9)
        if not (numbers and fine(self.colours, COLOURS) and fine(self.structures, STRUCTURES)):
            raise MedicError(
                f"no lesion has the signs {self}: asymmetry is 0-2, border 0-8, colours are of {', '.join(COLOURS)}, "
                f"structures of {', '.join(STRUCTURES)}, at least one of each"
            )

    @property
    def score(self) -> float:
        """The total dermatoscopy score, 1.0 to 8.9."""
        counted = (self.asymmetry, self.border, len(self.colours), len(self.structures))
        return float(np.dot(list(WEIGHTS.values()), counted))


def sample_signs(malignant: bool, rng: np.random.Generator) -> Signs:
    """Draw the signs of a benign or a malignant lesion.

    Each lesion has an atypia between 0 and 1, from distributions that overlap, and every sign is likelier the more
    atypical the lesion is: so signs come together as they do in life, some nevi look like melanomas and the reverse.
    """
    atypia = rng.beta(*_ATYPIA[malignant])
    shape = np.array([0.72, 0.24, 0.04]) * (1 - atypia) + np.array([0.02, 0.18, 0.80]) * atypia
    return Signs(
        asymmetry=int(rng.choice(3, p=shape)),
        border=int(rng.binomial(8, 0.08 + 0.6 * atypia)),
        colours=_some(_COLOUR_RATES, atypia, rng, ("light brown", "dark brown")),
        structures=_some(_STRUCTURE_RATES, atypia, rng, ("network", "globules", "structureless")),
    )


def _some(
    rates: dict[str, tuple[float, float]], atypia: float, rng: np.random.Generator, instead: tuple[str, ...]
) -> tuple[str, ...]:
    """The names that are drawn by their rates; where none of ``instead`` is among them, one of these too."""
    shown = [name for name, (low, high) in rates.items() if rng.random() < low + (high - low) * atypia]
    spare = instead[rng.integers(len(instead))]
    if not set(shown) & set(instead):
        shown.append(spare)
    return tuple(name for name in rates if name in shown)
