"""Coupling of two sources of evidence about a face: predictions of models, labels of similar faces.

A reconstruction: the abstract of SSER (Pan et al., Knowledge-Based Systems 2024) names "the coupling
effect of the complementary information from images and the multi-stage model" and gives no equation.
"""

from typing import Literal

import torch
from torch import Tensor

from fer_lightning.methods.sser.triplet import squared_distance

Coupling = Literal["product", "mean", "agreement", "model", "image"]


def image_evidence(
    query: Tensor, bank: Tensor, label: Tensor, neighbors: int = 10, temperature: float = 0.1
) -> Tensor:
    """Average the labels of the k nearest labeled faces: ``sum_n w_n q_n``, ``w = softmax(-d / t)``.

    Args:
        query: (B, D) rows of length 1, float32, of unlabeled faces.
        bank: (N, D) rows of length 1, of labeled faces, N > 0; may be stored in half precision.
        label: (N, C) probabilities.
        neighbors: k; at most N of them are taken.
        temperature: t, of the squared distances d, above 0.

    Returns:
        (B, C) probabilities, float32.
    """
    distance, nearest = squared_distance(query, bank).topk(min(neighbors, len(bank)), largest=False)
    w = (-distance / temperature).softmax(-1)
    return (w[:, :, None] * label[nearest]).sum(1)


def smooth(p: Tensor, smoothing: float) -> Tensor:
    """Spread a share evenly over the classes, so that no source can veto: (B, C) to (B, C)."""
    return (1 - smoothing) * p + smoothing / p.shape[-1]


def couple(
    p_mod: Tensor, p_img: Tensor, prior: Tensor, coupling: Coupling = "product", smoothing: float = 0.01
) -> Tensor:
    """Couple the evidence of models and of images into the label of complementary information, ``p_ci``.

    Args:
        p_mod: (B, C) float32 probabilities of the models.
        p_img: (B, C) of the images.
        prior: (C,) of the classes, all above 0.
        coupling: ``product`` is ``p_mod p_img / prior``, normalized: Bayes' rule for evidence that is
            independent given the class. The others are for comparison: ``mean`` of the two; ``agreement`` and
            ``model``, ``p_mod`` alone; ``image``, ``p_img`` alone.
        smoothing: epsilon, of the smoothing that all of them begin with, in (0, 1).

    Returns:
        (B, C) probabilities.
    """
    p_mod, p_img = smooth(p_mod, smoothing), smooth(p_img, smoothing)
    if coupling == "product":
        p = p_mod * p_img / prior
        return p / p.sum(-1, keepdim=True)
    if coupling == "mean":
        return (p_mod + p_img) / 2
    return p_img if coupling == "image" else p_mod


def accept(
    p_ci: Tensor, p_mod: Tensor, p_img: Tensor, threshold: float, coupling: Coupling = "product"
) -> Tensor:
    """Accept where ``max p_ci >= tau_ci`` and both sources predict the same class: (B,) bool.

    Arguments as of ``couple``, and the threshold tau_ci. ``model`` and ``image`` use one source alone.
    """
    confident = p_ci.max(-1).values >= threshold
    if coupling in ("model", "image"):
        return confident
    return confident & (p_mod.argmax(-1) == p_img.argmax(-1))


def stratified(label: Tensor, most: int) -> Tensor:
    """Choose faces in the proportions of their classes, deterministically.

    Args:
        label: (N,) int64 classes; faces of an unknown one (-1) are never chosen.
        most: faces to choose, at least 1; all known ones if they are no more.

    Returns:
        (N,) bool.
    """
    by_class = label.argsort(stable=True)[(label < 0).sum() :]
    count = min(most, len(by_class))
    # Evenly spaced over the faces in the order of their classes.
    places = torch.arange(count, device=label.device) * len(by_class) // max(count, 1)
    chosen = torch.zeros_like(label, dtype=torch.bool)
    chosen[by_class[places]] = True
    return chosen
