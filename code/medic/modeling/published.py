"""What papers report on NIH ChestX-ray14, to be put beside one's own figures, with what does not compare."""

from __future__ import annotations

import pandas as pd

from medic.task import FINDINGS

_WANG = (0.716, 0.807, 0.784, 0.609, 0.706, 0.671, 0.633, 0.806, 0.708, 0.835, 0.815, 0.769, 0.708, 0.767)
_CHEXNET = (
    0.8094, 0.9248, 0.8638, 0.7345, 0.8676, 0.7802, 0.7680, 0.8887, 0.7901, 0.8878, 0.9371, 0.8047, 0.8062, 0.9164,
)  # fmt: skip


def published_auroc() -> pd.DataFrame:
    """Area under the ROC curve by finding, as printed in table 2 of Rajpurkar et al., arXiv 1711.05225.

    The column of Wang et al. (arXiv 1705.02315) is the one that table quotes. Both papers split by patient, each in its
    own way, and neither states intervals; their training sets have tens of thousands of images.

    Returns:
        Columns ``Wang et al. 2017`` and ``CheXNet 2017``, 0..1, one row a finding.
    """
    columns = {"Wang et al. 2017": _WANG, "CheXNet 2017": _CHEXNET}
    return pd.DataFrame(columns, index=pd.Index(FINDINGS, name="class"))
