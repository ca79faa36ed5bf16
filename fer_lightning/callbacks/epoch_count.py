"""The number of epochs that a progress bar shows for a number of steps."""

import lightning as L
from lightning.pytorch.callbacks import Callback


class EpochCount(Callback):
    """Keeps the trainer's ``max_epochs`` at the epochs that ``max_steps`` still take.

    It is for the progress bar alone: the end is ``max_steps``, however long an epoch is by now. A trainer
    that resumes is to begin with a ``max_epochs`` that is too high, such as ``max_steps``.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count, for the first line of the progress bar."""
        self._count(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count again."""
        self._count(trainer)

    def _count(self, trainer: L.Trainer) -> None:
        per_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        left = -(-(trainer.max_steps - trainer.global_step) // max(1, per_epoch))
        # One more, for an epoch that is resumed in its middle and has fewer steps left.
        trainer.fit_loop.max_epochs = trainer.current_epoch + left + int(trainer.fit_loop.restarting)
