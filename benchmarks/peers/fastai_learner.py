"""fastai as its tutorials use it: a DataBlock with ``aug_transforms``, a Learner and ``fine_tune``; fp32.

Howard & Gugger, fastai: A Layered API for Deep Learning, Information 11(2), 2020; https://docs.fast.ai.
"""

import pandas as pd
import torch
from fastai.vision.all import (  # the whole of it: methods of the learner are added as modules are imported
    CategoryBlock,
    ColReader,
    CrossEntropyLossFlat,
    DataBlock,
    ImageBlock,
    Learner,
    Normalize,
    RandomSplitter,
    Resize,
    aug_transforms,
    params,
)
from peers.job import Job, answer, lite0, now


def main() -> None:
    job = Job.from_arguments()
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(job.classes)), sort=False)),
        get_x=ColReader("file"),
        get_y=ColReader("label"),
        splitter=RandomSplitter(valid_pct=0.02, seed=job.seed),
        item_tfms=Resize(job.size),
        batch_tfms=[*aug_transforms(flip_vert=True, max_rotate=180), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    table = pd.DataFrame(job.train, columns=["file", "label"])
    loaders = block.dataloaders(table, bs=16, num_workers=0, device=torch.device("cpu"))

    def groups(network):
        head = params(network.get_classifier())
        return [[weight for weight in params(network) if all(weight is not one for one in head)], head]

    learner = Learner(loaders, lite0(job), loss_func=CrossEntropyLossFlat(), splitter=groups)
    ready = now()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(job.epochs)
        trained = now()
        probabilities, _ = learner.get_preds(dl=loaders.test_dl(pd.DataFrame({"file": job.test}), num_workers=0))
    answer(ready, trained, probabilities, "fastai")


if __name__ == "__main__":
    main()
