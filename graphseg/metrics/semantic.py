"""How good class maps are: intersection over union, accuracy, accuracy of clusters; and how alike class weights are.

    prediction, target  --confusion_matrix-->  [K, K]  --mean_iou, pixel_accuracy, ...-->  a data set
    prediction, target  --confusion_matrix-->  [K, M]  --hungarian_accuracy-->  a data set, clusters for classes
    target  --class_adjacency-->  [K, K]  --class_weight_similarity-->  a network

Maps are one image `[H, W]`, a batch `[B, H, W]`, or a list of images of any sizes. Everything is counted over all
pixels of a data set, never image by image: matrices are exact and are added up, then turned into figures once, in
float64.

Papers: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks", section 4 (clusters matched over the whole test set); Zhu et al., "ES-CRF", Figure 1a (class weights of
adjacent classes). The latter leaves open: the similarity (the cosine here), and what adjacent pixels are (4-neighbours
of different classes here).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_finite, check_integer, check_same_device, check_shape, check_tensor
from graphseg.metrics._classes import read_class_maps
from graphseg.metrics._contingency import Tensors

__all__ = [
    "ClassWeightSimilarity",
    "HungarianAccuracy",
    "class_adjacency",
    "class_iou",
    "class_weight_similarity",
    "confusion_matrix",
    "frequency_weighted_iou",
    "hungarian_accuracy",
    "mean_iou",
    "pixel_accuracy",
]


class HungarianAccuracy(NamedTuple):
    """How often clusters name the right class, and which class each stands for."""

    accuracy: Tensor  # float64 []
    assignment: Tensor  # int64 [M], the class of each cluster, -1 for none


class ClassWeightSimilarity(NamedTuple):
    """Cosines of the weights of classes and of their closest neighbours, those they share the longest boundary with."""

    mean: Tensor  # float64 [], over the classes that have a neighbour
    weighted: Tensor  # float64 [], each class by the boundary that it shares with its neighbour
    overall: Tensor  # float64 [], over all pairs of different classes
    similarity: Tensor  # float64 [K], NaN for a class without a neighbour
    neighbour: Tensor  # int64 [K], -1 for none
    shared: Tensor  # int64 [K], pairs of pixels


def confusion_matrix(
    prediction: Tensors,
    target: Tensors,
    num_classes: int,
    ignore_index: int | None = 255,
    *,
    num_predicted: int | None = None,
) -> Tensor:
    """Counts the pixels of every class (rows) for which every class is predicted (columns).

    Args:
        prediction: integers in [0, num_predicted); not read where the target is ignored.
        target: ground truth, integers in [0, num_classes), or ignore_index.
        num_classes: K.
        ignore_index: value of pixels in `target` that count nowhere; None: there are none.
        num_predicted: M, for clusters that are not as many as the classes. Default: K.

    Returns:
        int64 `[K, M]`; matrices of parts of a data set add up to that of the whole.

    Raises:
        TypeError: for maps or numbers that are not integers.
        ValueError: for shapes, numbers of images or devices that do not fit, or a class out of range.
    """
    M = num_classes if num_predicted is None else num_predicted
    maps = read_class_maps(prediction, target, num_classes, ignore_index, M)
    # Ignored pixels, -1 in both maps, fall on key -M - 1 + M + 1 = 0; classes follow.
    table = torch.bincount(maps.target * M + maps.prediction + (M + 1), minlength=num_classes * M + M + 1)
    return table[M + 1 :].view(num_classes, M)


def class_iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, TP / (TP + FP + FN), over all pixels of a data set.

    Args:
        matrix: `[K, K]` of `confusion_matrix`.

    Returns:
        float64 `[K]`, in [0, 1]; NaN for a class that is neither true nor predicted anywhere. A class that is
        predicted without being true has 0.

    Raises:
        TypeError, ValueError: for a matrix that holds no counts or is not square.
    """
    right, true, predicted = _marginals(matrix)
    return right / (true + predicted - right).double()


def mean_iou(matrix: Tensor) -> Tensor:
    """The mean of `class_iou` over the classes that are true or predicted somewhere.

    Args:
        matrix: `[K, K]` of `confusion_matrix`.

    Returns:
        float64 `[]`, NaN if no pixel counts.

    Raises:
        TypeError, ValueError: as `class_iou`.
    """
    return class_iou(matrix).nanmean()


def frequency_weighted_iou(matrix: Tensor) -> Tensor:
    """The mean of `class_iou`, every class weighted by its share of the pixels.

    Args:
        matrix: `[K, K]` of `confusion_matrix`.

    Returns:
        float64 `[]`, NaN if no pixel counts.

    Raises:
        TypeError, ValueError: as `class_iou`.
    """
    true = _marginals(matrix)[1]
    return (class_iou(matrix).nan_to_num(0) * true).sum() / true.sum()


def pixel_accuracy(matrix: Tensor) -> Tensor:
    """The share of the pixels whose class is right.

    Args:
        matrix: `[K, K]` of `confusion_matrix`.

    Returns:
        float64 `[]`, NaN if no pixel counts.

    Raises:
        TypeError, ValueError: as `class_iou`.
    """
    right, true, _ = _marginals(matrix)
    return right.sum() / true.sum().double()


def hungarian_accuracy(matrix: Tensor) -> HungarianAccuracy:
    """The share of right pixels if every cluster stands for another class, so that the share is the largest possible.

    If clusters are more than classes, some stand for none and all their pixels are wrong; if they are fewer, some
    classes are never right. Of assignments that are equally good it is the first: that with the smallest class for
    cluster 0, then for cluster 1, and so on, where none comes after all classes.

    Args:
        matrix: `[K, M]` of `confusion_matrix`, over the whole data set.

    Returns:
        The accuracy, NaN if no pixel counts, and the assignment.

    Raises:
        TypeError, ValueError: for a matrix that holds no counts.

    Source: Kuhn, "The Hungarian method for the assignment problem", 1955; used as in SGSeg, section 4.
    """
    from scipy.optimize import linear_sum_assignment

    _check_counts(matrix)
    K, M = matrix.shape
    counts = np.zeros((M, max(K, M)), np.int64)  # rows clusters; columns behind K stand for no class
    counts[:, :K] = matrix.t().cpu().numpy()
    free = np.arange(counts.shape[1])
    chosen = []
    for cluster in range(M):
        # Whole numbers, so exact: the preference of one row weighs less than one pixel.
        value = counts[cluster:, free] * float(len(free))
        value[0] -= np.arange(len(free))
        first = linear_sum_assignment(value, maximize=True)[1][0]
        chosen.append(free[first])
        free = np.delete(free, first)
    assignment = torch.tensor(np.array(chosen), device=matrix.device)
    right = matrix.new_tensor(counts[np.arange(M), chosen].sum(), dtype=torch.float64)
    return HungarianAccuracy(right / matrix.sum(), assignment.where(assignment < K, -1))


def class_adjacency(target: Tensors, num_classes: int, ignore_index: int | None = 255) -> Tensor:
    """Counts the pairs of 4-neighbouring pixels of different classes: how long a boundary each two classes share.

    Args:
        target: ground truth, integers in [0, num_classes), or ignore_index; `[H, W]`, `[B, H, W]` or a list of images.
        num_classes: K.
        ignore_index: value of pixels that count nowhere; None: there are none.

    Returns:
        int64 `[K, K]`, symmetric, 0 on the diagonal; matrices of parts of a data set add up.

    Raises:
        TypeError, ValueError: as `confusion_matrix`.
    """
    maps = read_class_maps(target, target, num_classes, ignore_index, name="target")
    K = num_classes
    table = torch.zeros(K * K, dtype=torch.int64, device=maps.target.device)
    if not maps.sizes:
        return table.view(K, K)
    _, values = maps.padded(range(len(maps.sizes)))
    for a, b in ((values[:, 1:], values[:, :-1]), (values[:, :, 1:], values[:, :, :-1])):
        pair = (a != b) & (a >= 0) & (b >= 0)
        table += torch.bincount(a[pair] * K + b[pair], minlength=K * K)
    return table.view(K, K) + table.view(K, K).t()


def class_weight_similarity(weight: Tensor, adjacency: Tensor) -> ClassWeightSimilarity:
    """How alike a classifier's weights are for classes that share boundaries.

        n(k) = argmax_l adjacency[k, l],     similarity[k] = w_k . w_n(k) / (|w_k| |w_n(k)|)

    A fall of `mean` or `weighted` says that the weights of neighbours became easier to tell apart, beside `overall`.

    Args:
        weight: floating-point `[K, *]`, such as the weight of a 1x1 convolution to K classes.
        adjacency: `[K, K]` of `class_adjacency`, over the ground truth of a data set.

    Returns:
        Cosines in [-1, 1]: their means, NaN of nothing, and those of every class. Of neighbours that share equally
        much the first counts; the cosine with a weight of 0 is 0.

    Raises:
        TypeError, ValueError: for a weight that is not floating-point or not finite, or an adjacency that holds no
            counts, is not symmetric, or of another size.

    Source: Zhu et al., "ES-CRF", Figure 1a, which shows `similarity` over `shared` for every class.
    """
    if not check_tensor("weight", weight).is_floating_point():
        raise TypeError(f"got dtype {weight.dtype} for weight, expected a floating-point dtype")
    check_finite("weight", weight)
    _check_counts(adjacency, "adjacency")
    if weight.dim() < 2:
        raise ValueError(f"got shape {list(weight.shape)} for weight, expected [K, *]")
    K = weight.shape[0]
    check_shape("adjacency", adjacency, (K, K))
    check_same_device(weight=weight, adjacency=adjacency)
    if not torch.equal(adjacency, adjacency.t()):
        raise ValueError("got an adjacency that is not symmetric, expected the counts of class_adjacency")
    diagonal = torch.eye(K, dtype=torch.bool, device=weight.device)
    between = adjacency.long().masked_fill(diagonal, 0)
    w = weight.detach().double().flatten(1)  # [K, D]
    size = w.norm(dim=1, keepdim=True)
    w = w / size.where(size > 0, 1)
    cosine = w @ w.t()  # [K, K]
    shared = between.amax(1)  # [K]
    first = torch.where(between == shared[:, None], torch.arange(K, device=weight.device), K).amin(1)
    neighbour = first.where(shared > 0, -1)
    similarity = cosine.gather(1, first[:, None])[:, 0].where(shared > 0, torch.nan)
    return ClassWeightSimilarity(
        similarity.nanmean(),
        (similarity.nan_to_num(0) * shared).sum() / shared.sum(),
        cosine[~diagonal].mean(),
        similarity,
        neighbour,
        shared,
    )


def _check_counts(matrix: Tensor, name: str = "matrix") -> None:
    check_integer(name, check_tensor(name, matrix))
    if matrix.dim() != 2 or 0 in matrix.shape:
        raise ValueError(f"got shape {list(matrix.shape)} for {name}, expected [K, M]")
    if int(matrix.min()) < 0:
        raise ValueError(f"got {int(matrix.min())} in {name}, expected counts from 0")


def _marginals(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int64 `[K]` each: pixels of every class that are right, true, predicted."""
    _check_counts(matrix)
    check_shape("matrix", matrix, (matrix.shape[0], matrix.shape[0]))
    matrix = matrix.long()
    return matrix.diagonal(), matrix.sum(1), matrix.sum(0)
