"""`recommend`: which loss for these images, at which learning rate, by how much, and with what
certainty.

The best of many losses looks better than it is on the images that it was chosen on. So the images
are cut into folds, per class. For each fold, every loss is tuned and one is chosen on tasks of the
other folds' images; then the chosen one and cross-entropy train on those images and are validated
on the fold's, which the choice has not seen, not even through the mean of their pixels. The mean
difference over the folds is what the whole procedure, to choose and then to use, is worth on new
images (nested cross-validation, Stone 1974, Varma and Simon 2006); a best of many that is not
better gains nothing there. The loss that is recommended is chosen in the same way on all images.

The interval is over tasks and images: an image validates in many tasks of its fold, and in no other
fold. It holds for new images of the same kind and for trainings on the images that are here;
another set of images to train on could give another gain, which folds that share their training
images cannot tell (Bengio and Grandvalet 2004). Cross-entropy is recommended unless the interval
lies above 0. The intervals of single losses in the table are not corrected for their number and
decide nothing.
"""

from metaloss.experiments.recommendation.advice import Advice
from metaloss.experiments.recommendation.run import recommend, start
from metaloss.experiments.recommendation.settings import Recommendation

__all__ = ["Advice", "Recommendation", "recommend", "start"]
