"""MixMatch: sharpen the mean answer to two views, then learn mixtures of all faces and targets."""

from typing import Any

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Target, Unlabeled, Views
from fer_lightning.data.mixup import beta_share, mix
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels, sharpen


class MixMatch(SemiSupervised):
    """MixMatch: sharpen the mean answer to two views, then learn mixtures of all faces and targets.

    Berthelot et al., "MixMatch: A Holistic Approach to Semi-Supervised Learning", NeurIPS 2019,
    https://arxiv.org/abs/1905.02249, eqs. (2)-(11). The student's mean probabilities over K = 2 weak views of
    an unlabeled face are sharpened (temperature T) and believed of both views. Then the B labeled and K mu B
    unlabeled rows, images and targets alike, are mixed with a permutation of themselves, by one share
    ``max(l, 1 - l)``, ``l ~ Beta(alpha, alpha)``, per batch. ``l_s`` is the cross-entropy of the first B
    mixtures, ``l_u`` the mean squared error of the probabilities of the others, and the loss
    ``l_s + lambda_u w(t) l_u``.

    ========  =========================  ======================  =========================
    what      paper                      USB, SSL_FER            ours
    ========  =========================  ======================  =========================
    alpha     0.75                       0.5                     0.5
    ramp      linear, 16000 steps        linear, 0.4 of the run  as USB; `ramp`
    mu        1                          1 (needed)              any; 1 in the YAML
    BN        (code) interleaved, the    the labeled mixtures    all passes move the running
              first chunk moves the      alone move the running  statistics: the guess's and
              running statistics         statistics              the mixtures'
    ========  =========================  ======================  =========================

    With ``joint_forward`` all views are guessed in one pass and all mixtures learnt in one; else labeled and
    unlabeled mixtures, and the views, have a pass each. Images are mixed as floats in [0, 1]. With
    ``targets: both``, valence and arousal are averaged over the views and mixed with the images. A mixture
    with a face whose emotion is unknown does not count.

    Args:
        T: temperature of the sharpening, over 0.
        alpha: of the Beta distribution, over 0.
        lambda_u: weight of the unlabeled loss, reached after the ramp.
        ramp: share of the run over which the weight rises linearly from 0, in [0, 1].
        **kwargs: options of every method.
    """

    about = About(
        name="MixMatch",
        paper="Berthelot et al. 2019",
        url="https://arxiv.org/abs/1905.02249",
        believes="the student's sharpened mean over two weak views",
        learns="mixtures of all faces and targets, by squared error",
        state="",
    )
    views = Views(labeled=1, weak=2, strong=0)

    def __init__(
        self, T: float = 0.5, alpha: float = 0.5, lambda_u: float = 100.0, ramp: float = 0.4, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("T", T), ("alpha", alpha)):
            if value <= 0:
                raise InputError(f"--model.{name} is {value}; give a number over 0, 0.5 is usual")
        self.T, self.alpha, self.lambda_u, self.ramp = T, alpha, lambda_u, ramp

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Guess: believe the sharpened mean of the student's answers to both views."""
        views = [self.task.predict(output) for output in self.forward_views(*unlabeled.weak)]
        q = sharpen(torch.stack([view.emotion for view in views]).mean(0), self.T)
        valence_arousal = torch.stack([view.valence_arousal for view in views]).mean(0)
        return make_pseudo_labels(unlabeled.index, q, valence_arousal, None, soft=q)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Mix all faces; return ``l_s`` of the labeled mixtures and ``lambda_u w(t) l_u`` of the others."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        images = torch.cat([labeled.image, *unlabeled.weak]).float() / 255
        share = beta_share(self.alpha, images.device)
        order = torch.randperm(len(images), device=images.device)
        believed = [pseudo.target] * len(unlabeled.weak)
        targets = [mix(torch.cat(rows), share, order) for rows in zip(labeled.target, *believed, strict=True)]
        sizes = [len(labeled.image), len(images) - len(labeled.image)]
        x, u = self.forward_views(*mix(images, share, order).split(sizes))
        x_target, u_target = (
            Target(*parts) for parts in zip(*(t.split(sizes) for t in targets), strict=True)
        )
        weight = pseudo.weight.repeat(len(unlabeled.weak))
        return {
            "supervised": self.task.supervised(x, x_target),
            "unlabeled": self.lambda_u
            * ramp_up(self.progress, self.ramp)
            * self.task.mse_consistency(u, u_target, weight),
        }
