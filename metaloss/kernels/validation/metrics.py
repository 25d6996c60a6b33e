"""What metrics need of many classifiers' logits: answers counted, images ranked for their class."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.jit import compiled
from metaloss.kernels.validation.accuracy import find_answers


@compiled
def count_answers(logits, label, counts):
    """Fills `counts` [N C C]: how many images of each class (row) got each class as their answer.

    NaN where any logit of the classifier is not finite.

    Args:
        logits: [N C V].
        label: [T V]; classifier n has those of task n modulo T.
        counts: filled, [N C C].
    """
    answer = np.zeros(logits.shape[2], np.int64)
    nan = np.zeros(logits.shape[2], logits.dtype)
    for n in range(len(logits)):
        t = n % len(label)
        find_answers(logits[n], answer, nan)
        counts[n] = 0
        unsound = counts[n, 0, 0]
        for i in range(len(answer)):
            counts[n, label[t, i], answer[i]] += 1
            unsound += nan[i]
        counts[n] += unsound


@compiled
def count_weighted(answer, label, weight, counts):
    """Fills in how often each class got each class as its answer, in each of R resamples.

    Args:
        answer: the class that each classifier gives each image, [N V].
        label: [T V]; classifier n has those of task n modulo T.
        weight: how often each image counts, [T V R].
        counts: filled, [N C C R].
    """
    for n in range(len(answer)):
        t = n % len(label)
        counts[n] = 0
        for i in range(answer.shape[1]):
            row = counts[n, label[t, i], answer[n, i]]
            of_image = weight[t, i]
            for r in range(len(row)):
                row[r] += of_image[r]


@compiled
def rank_images(score, label, found, above, level):
    """Fills in how every image ranks by the score of its own class, for every classifier.

    Only the scores of a class's own images are sorted; each other image is looked up among them.

    Args:
        score: [N C V], finite.
        label: [T V]; classifier n has those of task n modulo T.
        found: filled with how many images of the same class score at least as high, [N V].
        above: filled with how many images of other classes score higher, [N V].
        level: filled with how many images of other classes score at least as high, [N V].
    """
    images = score.shape[2]
    for n in range(len(score)):
        t = n % len(label)
        for c in range(score.shape[1]):
            own = np.sort(score[n, c][label[t] == c])
            m = len(own)
            # Of every value, the first place with a higher one.
            end = np.full(m + 1, m, np.int64)
            for k in range(m - 2, -1, -1):
                end[k] = k + 1 if own[k] < own[k + 1] else end[k + 1]
            # Of others, how many are higher than, or at least as high as, so many of the own.
            higher = np.zeros(m + 1, np.int64)
            as_high = np.zeros(m + 1, np.int64)
            for i in range(images):
                if label[t, i] != c:
                    k = _lower(own, score[n, c, i])
                    higher[k] += 1
                    as_high[end[k] if k < m and own[k] == score[n, c, i] else k] += 1
            for k in range(m - 1, -1, -1):
                higher[k] += higher[k + 1]
                as_high[k] += as_high[k + 1]
            for i in range(images):
                if label[t, i] == c:
                    k = _lower(own, score[n, c, i])
                    found[n, i] = m - k
                    above[n, i] = higher[k + 1]
                    level[n, i] = as_high[k + 1]


@compiled
def rank_weighted(score, label, weight, found, above, level):
    """What `rank_images` fills in, for images that count as often as each of R weights says.

    Args:
        score: [N C V], finite.
        label: [T V]; classifier n has those of task n modulo T.
        weight: [T V R].
        found: filled, [N V R].
        above: filled, [N V R].
        level: filled, [N V R].
    """
    resamples = weight.shape[2]
    for n in range(len(score)):
        t = n % len(label)
        for c in range(score.shape[1]):
            members = np.flatnonzero(label[t] == c)
            members = members[np.argsort(score[n, c][members])]
            own = score[n, c][members]
            m = len(own)
            end = np.full(m + 1, m, np.int64)
            for k in range(m - 2, -1, -1):
                end[k] = k + 1 if own[k] < own[k + 1] else end[k + 1]
            # Sums from each place of the own images on, [m+1 R].
            same = np.zeros((m + 1, resamples), score.dtype)
            higher = np.zeros((m + 1, resamples), score.dtype)
            as_high = np.zeros((m + 1, resamples), score.dtype)
            for i in range(score.shape[2]):
                if label[t, i] != c:
                    k = _lower(own, score[n, c, i])
                    place = end[k] if k < m and own[k] == score[n, c, i] else k
                    for r in range(resamples):
                        higher[k, r] += weight[t, i, r]
                        as_high[place, r] += weight[t, i, r]
            for k in range(m - 1, -1, -1):
                for r in range(resamples):
                    same[k, r] = same[k + 1, r] + weight[t, members[k], r]
                    higher[k, r] += higher[k + 1, r]
                    as_high[k, r] += as_high[k + 1, r]
            for j in range(m):
                k = _lower(own, own[j])
                for r in range(resamples):
                    found[n, members[j], r] = same[k, r]
                    above[n, members[j], r] = higher[k + 1, r]
                    level[n, members[j], r] = as_high[k + 1, r]


@compiled
def _lower(ascending, value):
    """How many of the numbers are lower than a value."""
    low = 0
    high = len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low
