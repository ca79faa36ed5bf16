"""Evidence about unlabeled faces from two sources: models of two stages, and similar labeled faces."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fer_lightning.data.batch import Evaluated
from fer_lightning.methods.sser.coupling import image_evidence, stratified
from fer_lightning.methods.sser.labeled_bank import LabeledBank
from fer_lightning.methods.sser.triplet import Form, activation_matrix
from fer_lightning.models.network import FaceNetwork


class Evidence(nn.Module):
    """Evidence of a frozen network of the stage before, and of the labeled faces as it encodes them.

    A reconstruction of "the complementary information from images and the multi-stage model" (the abstract of
    SSER, Pan et al., Knowledge-Based Systems 2024). Empty until ``begin``.

    Args:
        network: whose copy becomes the snapshot.
        form: of the matrices whose distances are compared, see ``activation_matrix``.
        snapshot_share: share of the snapshot in the evidence of the models, in [0, 1] (omega).
        neighbors: labeled faces whose labels are averaged (k).
        temperature: of their squared distances, above 0 (t).
        bank_size: labeled faces in the bank, at most, in the proportions of their classes.
    """

    prior: Tensor
    """(C,) shares of the emotions among the labels."""

    def __init__(
        self,
        network: FaceNetwork,
        form: Form,
        snapshot_share: float,
        neighbors: int,
        temperature: float,
        bank_size: int,
    ) -> None:
        super().__init__()
        self.task, self.form, self.bank_size = network.task, form, bank_size
        self.snapshot_share, self.neighbors, self.temperature = snapshot_share, neighbors, temperature
        self.snapshot = copy.deepcopy(network).requires_grad_(False).eval()
        self.bank = LabeledBank(self.task.classes)
        self.register_buffer("prior", torch.full((self.task.classes,), 1 / self.task.classes))

    def train(self, mode: bool = True) -> "Evidence":
        """Set the mode of everything but the snapshot, which stays in eval mode."""
        super().train(mode)
        self.snapshot.eval()
        return self

    @property
    def begun(self) -> bool:
        """Whether there is a stage before."""
        return len(self.bank.rows) > 0

    @torch.no_grad()
    def begin(self, network: FaceNetwork, faces: Iterable[Evaluated], label: Tensor, prior: Tensor) -> None:
        """Freeze a network, and let it encode the labeled faces; to be called on all ranks together.

        Args:
            network: whose weights the snapshot takes.
            faces: see ``LabeledBank.fill``.
            label: (N,) int64 of all labeled faces.
            prior: (C,) shares of the emotions among them.
        """
        self.prior.copy_(prior)
        self.snapshot.load_state_dict(network.state_dict())
        chosen = stratified(label, self.bank_size).to(prior.device)
        self.bank.fill(faces, lambda images: self._encode(self.snapshot.feature_maps(images)), chosen)

    def forward(self, weak: Tensor, network: FaceNetwork) -> tuple[Tensor, Tensor, Tensor]:
        """Return the evidence of the models and of the images, before they are coupled; only once ``begun``.

        Args:
            weak: (V, B, 3, H, W) uint8 RGB, views of the faces.
            network: of this stage, averaged with the snapshot.

        Returns:
            (B, C) ``p_mod``, (B, C) ``p_img``, and (B, 2) valence and arousal of the models, or (B, 0).
        """
        images = weak.flatten(0, 1)
        before, now = self.snapshot(images), network(images)
        old, new = self.task.predict(before), self.task.predict(now)
        p_mod = torch.lerp(new.emotion, old.emotion, self.snapshot_share)
        rows = self._encode(before.maps)
        p_img = image_evidence(rows, self.bank.rows, self.bank.label, self.neighbors, self.temperature)
        valence_arousal = torch.lerp(new.valence_arousal, old.valence_arousal, self.snapshot_share)
        evidence = (p_mod, p_img, valence_arousal)
        p_mod, p_img, valence_arousal = (each.unflatten(0, weak.shape[:2]).mean(0) for each in evidence)
        return p_mod, p_img, valence_arousal

    def _encode(self, maps: Tensor) -> Tensor:
        return activation_matrix(maps, self.form)
