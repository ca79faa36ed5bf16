"""SSER: images and models of several stages label together; a triplet loss teaches which images are alike."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up, stage_at
from fer_lightning.methods.sser.coupling import Coupling, accept, couple
from fer_lightning.methods.sser.entropy import entropy
from fer_lightning.methods.sser.evidence import Evidence
from fer_lightning.methods.sser.triplet import (
    Form,
    activation_matrix,
    active_share,
    class_distance,
    squared_distance,
    triplet_loss,
)
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels, sharpen


class SSER(SemiSupervised):
    """SSER, a reconstruction: believe what models and similar labeled faces say together, stage after stage.

    Pan, Shao, Xiong, Lei, Huang, Beckman, Hu, "SSER: Semi-Supervised Emotion Recognition Based on Triplet
    Loss and Pseudo Label", Knowledge-Based Systems 2024, https://www.aminer.org/pub/65e6c51313fb2c6cf6260b1f.
    Only the paper's abstract is public: no equation, number or code. So this is a reconstruction, clause by
    clause, and what it scores is no result of the paper::

        paper's abstract                          ours
        "multiple activation channels as a        last feature maps, K x hw, Frobenius norm 1; batch-all
          matrix", triplet loss (AMT)               triplets of squared distances, margin m
        "complementary information from images"   p_img: labels of the k nearest labeled faces by activation
                                                    matrix; two weak views, the second mirrored
        "the multi-stage model"                   p_mod: omega snapshot of the stage before + (1 - omega)
                                                    teacher; a new snapshot and bank at each stage
        "coupling effect", "high-confidence"      p_ci: p_mod, or p_mod p_img / prior; believed if p_ci is at
                                                    least tau_ci and both name the same emotion
        "entropy minimization and consistency     target p_ci^(1/T); lambda_u H(target, strong view) and
          regularization"                           lambda_e H(strong view), which rises over the first
                                                    fifth of stage 1

    Stage 0 learns from the labels alone: ``supervised + lambda_amt AMT``. Discrete emotions only; with
    ``targets: both``, valence and arousal are believed wherever the emotion is, as the models say them. Both
    sources look at both weak views. Product confidences are inflated, as the sources share a trunk: compare
    couplings at the same coverage, each with its own ``tau_ci``, never at the same ``tau_ci``. Draw labeled
    faces class by class (``data.class_balanced``), so that each has another of its class beside it.

    Args:
        tau_ci: confidence of the coupled label from which it is believed.
        lambda_u: weight of the unlabeled loss.
        lambda_amt: weight of the triplet loss; 0 for none.
        m: margin of the triplet loss.
        n_cap: believed strong views, at most, that join the labeled faces in the triplet loss.
        amt_matrix: what a distance between images compares: ``activation`` matrices, their ``gram`` matrices,
            or ``pooled`` features.
        coupling: ``agreement`` (the models, where images agree), the best at equal coverage in
            ``experiments/choices.yaml``; ``product``, for which ``tau_ci`` is 0.98; ``mean``; and, to compare
            with, ``model`` or ``image`` alone.
        omega: share of the snapshot in the evidence of the models, in [0, 1].
        k: labeled faces that are asked about an unlabeled one.
        t: temperature of their squared distances.
        epsilon: smoothing of either source, in (0, 1).
        T: temperature that sharpens the coupled label; 1 leaves it as it is.
        lambda_e: weight of the entropy minimisation; 0 for none.
        ent_on: minimise the entropy of ``accepted`` faces or of ``all``.
        stages: shares of the run's optimiser steps, of stage 0 and of each after it.
        bank_size: labeled faces kept to be asked, at most, in the proportions of their classes.
        **kwargs: options of every method.
    """

    about = About(
        name="SSER (reconstruction)",
        paper="Pan et al. 2024",
        url="https://www.aminer.org/pub/65e6c51313fb2c6cf6260b1f",
        believes="models and similar labeled faces where they agree, if surer together than `tau_ci`",
        learns="the strong view, its entropy, triplets of activation matrices",
        state="the network of the stage before, its bank of labeled faces",
    )
    views = Views(labeled=1, weak=2, strong=1, mirrored=True)
    stage: Tensor

    def __init__(
        self,
        tau_ci: float = 0.8,
        lambda_u: float = 1.0,
        lambda_amt: float = 0.3,
        m: float = 0.2,
        n_cap: int = 64,
        amt_matrix: Form = "activation",
        coupling: Coupling = "agreement",
        omega: float = 0.5,
        k: int = 10,
        t: float = 0.1,
        epsilon: float = 0.01,
        T: float = 0.5,
        lambda_e: float = 0.1,
        ent_on: Literal["accepted", "all"] = "accepted",
        stages: Sequence[float] = (0.2, 0.4, 0.4),
        bank_size: int = 4096,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, right, needed in (
            ("n_cap", n_cap, n_cap >= 0, "at least 0"),
            ("omega", omega, 0 <= omega <= 1, "between 0 and 1"),
            ("k", k, k >= 1, "at least 1"),
            ("t", t, t > 0, "above 0"),
            ("epsilon", epsilon, 0 < epsilon < 1, "between 0 and 1, excluded"),
            ("T", T, T > 0, "above 0"),
            ("bank_size", bank_size, bank_size >= 1, "at least 1"),
            ("stages", stages, min(stages, default=0) > 0 and abs(sum(stages) - 1) < 1e-6, "shares of sum 1"),
        ):
            if not right:
                raise InputError(f"--model.{name} is {value}; it must be {needed}")
        self.tau_ci, self.lambda_u, self.lambda_amt, self.lambda_e = tau_ci, lambda_u, lambda_amt, lambda_e
        self.m, self.n_cap, self.amt_matrix, self.coupling = m, n_cap, amt_matrix, coupling
        self.epsilon, self.T, self.ent_on, self.stages = epsilon, T, ent_on, stages
        self.evidence = Evidence(self.inference_network, amt_matrix, omega, k, t, bank_size)
        self.register_buffer("stage", torch.tensor(0))

    def on_train_start(self) -> None:
        """Read the stage, once: a resumed run goes on in its own."""
        super().on_train_start()
        self._stage = int(self.stage)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin the next stage at the first batch that is due: from there a run also resumes."""
        stage = stage_at(self.progress, self.stages)
        if stage > self._stage:
            self._stage = stage
            self.stage.fill_(stage)
            label = self.datamodule.labeled_target.label
            self.evidence.begin(self.inference_network, self.labeled_faces(), label, self.labeled_prior())

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels | None:
        """Believe the coupled evidence of models and images; nothing in stage 0, which has no bank."""
        if not self.evidence.begun:
            return None
        p_mod, p_img, valence_arousal = self.evidence(unlabeled.weak, self.inference_network)
        p_ci = couple(p_mod, p_img, self.evidence.prior, self.coupling, self.epsilon)
        weight = accept(p_ci, p_mod, p_img, self.tau_ci, self.coupling).float()
        if self._logged_now():
            agree = p_mod.argmax(-1) == p_img.argmax(-1)
            self.log("train/agreement", agree.float().mean())
        pseudo = make_pseudo_labels(
            unlabeled.index, p_ci, valence_arousal, self.tau_ci, soft=sharpen(p_ci, self.T)
        )
        return pseudo._replace(weight=weight)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return the supervised and the triplet loss, and after stage 0 consistency and entropy."""
        label = labeled.target.label
        if unlabeled is None or pseudo is None:
            x = self.student(labeled.image)
            return {"supervised": self.task.supervised(x, labeled.target), **self._amt(x.maps, label)}
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        # The first believed faces of the batch; their number is fixed, so that nothing waits for the device.
        first = pseudo.weight.argsort(descending=True, stable=True)[: self.n_cap]
        believed = torch.where(pseudo.weight > 0, pseudo.target.label, -1)[first]
        terms = {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": self.lambda_u * self.task.consistency(s, pseudo.target, pseudo.weight),
            **self._amt(torch.cat([x.maps, s.maps[first]]), torch.cat([label, believed])),
        }
        if self.lambda_e:
            r = ramp_up(self.progress - self.stages[0], 0.2 * self.stages[1])
            on = pseudo.weight if self.ent_on == "accepted" else None
            terms["entropy"] = self.lambda_e * r * entropy(s.logits, on)
        return terms

    def _amt(self, maps: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the weighted triplet loss of (N, K, h, w) maps; label -1 is none."""
        if not self.lambda_amt:
            return {}
        rows, rho = activation_matrix(maps, self.amt_matrix), class_distance(label)
        d = squared_distance(rows, rows)
        if self._logged_now():
            self.log("train/active_triplets", active_share(d.detach(), rho, self.m, classes=True))
        return {"amt": self.lambda_amt * triplet_loss(d, rho, self.m, classes=True)}
