"""The published figures are those that the papers print."""

import pytest

from medic.modeling.rankings import published_auroc
from medic.task import FINDINGS


def test_the_table_has_every_finding_and_the_means_of_the_papers():
    table = published_auroc()
    assert table.index.tolist() == list(FINDINGS)
    assert len(table) == 14
    assert table.mean().round(3).to_dict() == {"Wang et al. 2017": 0.738, "CheXNet 2017": 0.841}
    assert table.loc["Pneumonia", "CheXNet 2017"] == pytest.approx(0.768)
    assert table.loc["Hernia", "Wang et al. 2017"] == pytest.approx(0.767)
