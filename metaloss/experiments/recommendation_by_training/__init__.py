"""`recommend --train`: which loss for these images, judged by the training that is really meant.

A fold's images are left out. On the others candidates, a loss at a rate each, are halved from short
trainings to real ones, judged by inner parts that take turns to be held out. What survives and
cross-entropy, which is tuned in the same stages, then train on all images outside the fold with at
least three seeds, and are judged on the fold's images (nested cross-validation, as for `recommend`
by episodes). So folds + 1 halvings are needed: one more on all images names the loss.

The interval of the gain is over images and training seeds. Every image is looked at once for every
seed, by a network that has not seen it, so the metric is computed of all images together.
"""

from metaloss.experiments.recommendation_by_training.halving import HalvingStage
from metaloss.experiments.recommendation_by_training.run import start
from metaloss.experiments.recommendation_by_training.settings import TrainingRecommendation

__all__ = ["HalvingStage", "TrainingRecommendation", "start"]
