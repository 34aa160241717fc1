"""Tracking: settings, curves, the evaluation and its picture reach the tracker, in a local folder."""

from dataclasses import replace

import pytest

from medic.modeling.evaluate import evaluate
from medic.modeling.training.fit import fit
from medic.modeling.training.run import log_evaluation, tracker


@pytest.fixture
def tracked(tiny_prepared, network, quick, tmp_path, monkeypatch):
    """Trains with a tracker and logs the evaluation; gives the folder of the run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def train(name: str):
        recipe = replace(quick, epochs=2, track=name)
        run = fit(network(image_size=32), tiny_prepared, tmp_path / "runs" / "mine", recipe)
        log_evaluation(tracker(name, run.folder), evaluate(run, "validation"))
        return run.folder

    return train


def test_mlflow_has_settings_curves_evaluation_and_picture_in_one_run(tracked):
    from mlflow import MlflowClient

    folder = tracked("mlflow")
    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("medic").experiment_id])
    assert run.info.run_name == "mine"
    assert run.info.status == "FINISHED"
    assert (run.data.params["network"], run.data.params["epochs"]) == ("mobilenet_v3_small", "2")
    assert len(client.get_metric_history(run.info.run_id, "validation_accuracy")) == 2
    assert "evaluation_quadratic_weighted_kappa" in run.data.metrics
    assert (folder.parent / "mlruns" / run.info.run_id / "artifacts" / "confusion.png").stat().st_size > 1000


def test_tensorboard_has_the_same_as_events(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tracked("tensorboard")
    events = EventAccumulator(str(folder.parent / "tensorboard" / "mine")).Reload()
    tags = events.Tags()
    assert {"validation_accuracy", "evaluation_quadratic_weighted_kappa"} <= set(tags["scalars"])
    assert tags["images"] == ["confusion"]
