"""MixMatch: sharpened mean predictions on two views, and mixtures of all faces and targets."""

from typing import Any

import torch

from fer_lightning.data.batch import Labeled, Target, Unlabeled, Views
from fer_lightning.data.mixup import beta_share, mix
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels, sharpen
from fer_lightning.ranges import NonNegativeFloat, PositiveFloat, Share


class MixMatch(SemiSupervised):
    """MixMatch: sharpened mean predictions on two views, and mixtures of all faces and targets.

    Berthelot et al., "MixMatch: A Holistic Approach to Semi-Supervised Learning", NeurIPS 2019,
    https://arxiv.org/abs/1905.02249, eqs. (2)-(11). The student's mean probabilities over K = 2 weak views of
    an unlabeled face are sharpened (temperature T): the pseudo-label of both views. Then the B labeled and
    K mu B unlabeled rows, images and targets alike, are mixed with a permutation of themselves, by one share
    ``max(l, 1 - l)``, ``l ~ Beta(alpha, alpha)``, per batch. ``l_s`` is the cross-entropy of the first B
    mixtures, ``l_u`` the mean squared error of the probabilities of the others, and the loss
    ``l_s + lambda_u w(t) l_u``.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences:

    ========  =========================  ======================  =========================
    what      paper                      USB, SSL_FER            ours
    ========  =========================  ======================  =========================
    alpha     0.75                       0.5                     0.5
    ramp      linear, 16000 steps        linear, 0.4 of the run  as USB; `ramp`
    mu        1                          1 (needed)              any; data options
    BN        (code) interleaved, the    the labeled mixtures    all passes move the running
              first chunk moves the      alone move the running  statistics: the guess's and
              running statistics         statistics              the mixtures'
    ========  =========================  ======================  =========================

    The share is drawn per batch, as in USB; Google's code draws one per row. With ``joint_forward`` both
    views have one forward and all mixtures one; else labeled and unlabeled mixtures, and the views, have a
    forward each. Images are mixed as floats in [0, 1]. With ``targets: both``, valence and arousal are
    averaged over the views and mixed with the images. A mixture with a face whose emotion is unknown does not
    count.

    Args:
        temperature: of the sharpening (T).
        mixup_alpha: of the Beta distribution (alpha).
        unlabeled_weight: weight of the unlabeled loss, reached after the ramp (lambda_u).
        ramp: share of the run over which the weight rises linearly from 0.
        **kwargs: options of every method.
    """

    about = About(
        name="MixMatch",
        paper="Berthelot et al. 2019",
        url="https://arxiv.org/abs/1905.02249",
        pseudo_labels="the student's sharpened mean over two weak views",
        learns="mixtures of all faces and targets, by squared error",
        state="",
    )
    views = Views(labeled=1, weak=2, strong=0)

    def __init__(
        self,
        temperature: PositiveFloat = 0.5,
        mixup_alpha: PositiveFloat = 0.5,
        unlabeled_weight: NonNegativeFloat = 100.0,
        ramp: Share = 0.4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.temperature, self.mixup_alpha = temperature, mixup_alpha
        self.unlabeled_weight, self.ramp = unlabeled_weight, ramp

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Take the sharpened mean of the student's probabilities on both views."""
        views = [self.task.predict(output) for output in self.forward_views(*unlabeled.weak)]
        q = sharpen(torch.stack([view.emotion for view in views]).mean(0), self.temperature)
        valence_arousal = torch.stack([view.valence_arousal for view in views]).mean(0)
        return make_pseudo_labels(unlabeled.index, q, valence_arousal, None, soft=q)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Mix all faces; return ``l_s`` of the labeled mixtures and ``lambda_u w(t) l_u`` of the others."""
        images = torch.cat([labeled.weak[0], *unlabeled.weak]).float() / 255
        share = beta_share(self.mixup_alpha, images.device)
        order = torch.randperm(len(images), device=images.device)
        rows = zip(labeled.target, *[pseudo.target] * len(unlabeled.weak), strict=True)
        targets = [mix(torch.cat(each), share, order) for each in rows]
        sizes = [len(labeled.index), len(images) - len(labeled.index)]
        x, u = self.forward_views(*mix(images, share, order).split(sizes))
        x_target, u_target = (
            Target(*parts) for parts in zip(*(t.split(sizes) for t in targets), strict=True)
        )
        weight = pseudo.weight.repeat(len(unlabeled.weak))
        ramp = self.unlabeled_weight * ramp_up(self.progress, self.ramp)
        return Losses(
            (x, u),
            supervised=self.task.supervised(x, x_target),
            unlabeled=ramp * self.task.mse_consistency(u, u_target, weight),
        )
