"""A folder of small images, and settings that train on it in no time."""

import numpy as np
from PIL import Image

TASKS = "tasks:folder:scans,inner.steps=3,shots=2,val=2,classifier.hidden=[4]"
TRAIN = "train:data=folder:scans,model=convnet,steps=4,epoch_steps=2,batch=4"


def written(folder, images=25, bright=150, dark=110, spread=60):
    """So many grey images of each of two classes, bright and dark ones, in a folder `scans`."""
    draw = np.random.default_rng(0)
    for name, level in (("bright", bright), ("dark", dark)):
        (folder / "scans" / name).mkdir(parents=True)
        for i in range(images):
            pixels = (level + spread * draw.standard_normal((12, 12))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "scans" / name / f"{i:02d}.png")
