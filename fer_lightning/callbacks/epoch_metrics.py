"""Metrics of an epoch that are in the log before its checkpoint is saved."""

from collections.abc import Mapping

import lightning as L


def log_epoch_metrics(trainer: L.Trainer, pl_module: L.LightningModule, values: Mapping[str, float]) -> None:
    """Log metrics at the end of a training epoch, at once.

    What Lightning logs then, it writes after the checkpoint of the epoch: a run that is killed in between
    and goes on from there would never have these rows.

    Args:
        trainer: of the run.
        pl_module: its method.
        values: by name, equal on all ranks; NaN is left out.
    """
    known = {name: value for name, value in sorted(values.items()) if value == value}
    # For callbacks and the progress bar; Lightning neither reduces them nor warns.
    pl_module.log_dict(known, batch_size=1, sync_dist=True, rank_zero_only=True, logger=False)
    if known:
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **known}, step=trainer.global_step - 1)
