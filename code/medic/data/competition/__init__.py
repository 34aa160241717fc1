"""Training and validation images from two archives, as an entry to the competition needs them."""

from medic.data.competition.folder import write
from medic.data.competition.selection import Selection, select

__all__ = ["Selection", "select", "write"]
