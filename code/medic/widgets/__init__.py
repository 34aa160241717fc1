"""Widgets for notebooks: correct labels, click through results, move a threshold. They need ``medic[notebooks]``."""

from medic.widgets.label_editor import LabelEditor
from medic.widgets.results_viewer import ResultsViewer
from medic.widgets.threshold_explorer import ThresholdExplorer

__all__ = ["LabelEditor", "ResultsViewer", "ThresholdExplorer"]
