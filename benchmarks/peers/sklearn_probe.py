"""scikit-learn on frozen features: one pass of the network, then a logistic regression. It has no epochs."""

import numpy as np
import torch
from peers.job import Job, answer, lite0, now
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize


def main() -> None:
    job = Job.from_arguments()
    network = lite0(job).eval()
    network.reset_classifier(0)

    @torch.inference_mode()
    def features(files: list[str]) -> np.ndarray:
        rows = []
        for file in files:
            pixels = resize(decode_image(file, ImageReadMode.RGB), [job.size, job.size], antialias=True)
            rows.append(network(pixels[None].float() / 127.5 - 1))
        return torch.cat(rows).numpy()

    ready = now()
    files, labels = zip(*job.train, strict=True)
    head = LogisticRegression(class_weight="balanced", C=0.003, max_iter=2000)
    probe = make_pipeline(StandardScaler(), head).fit(features(list(files)), labels)
    trained = now()
    answer(ready, trained, probe.predict_proba(features(job.test)), "scikit-learn")


if __name__ == "__main__":
    main()
