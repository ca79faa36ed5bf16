"""One way from a figure to a file and to every logger that shows pictures."""

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

from fer_lightning.files import writing
from fer_lightning.outputs.run_logger import RunLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120


def run_directory(trainer: L.Trainer) -> Path:
    """Return where the run writes; any rank may ask alone, which ``Trainer.log_dir`` does not allow."""
    own = (logger.run_dir for logger in trainer.loggers if isinstance(logger, RunLogger))
    return next(own, Path(trainer.default_root_dir))


def save_figure(figure: "Figure", file: Path) -> None:
    """Write a figure to a file, whose folder is made if need be.

    Raises:
        NotWritten: if that fails.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=DPI)


def log_figure(trainer: L.Trainer, name: str, figure: "Figure") -> None:
    """Save a figure in the run directory, hand it to every logger that shows pictures, and release it.

    Does nothing on ranks other than zero, so it may be called on all of them or on that one.

    Args:
        trainer: whose loggers and whose run directory are meant.
        name: of the file ``figures/<name>.png``, which is written over, and of the picture ``figures/<name>``
            in the loggers, which keep one per step.
        figure: made without pyplot, so that it needs no display and is not kept elsewhere.
    """
    if trainer.is_global_zero:
        file = run_directory(trainer) / "figures" / f"{name}.png"
        save_figure(figure, file)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # Weights & Biases
                logger.log_image(key=f"figures/{name}", images=[str(file)], step=trainer.global_step)
            elif hasattr(experiment := getattr(logger, "experiment", object()), "add_figure"):  # TensorBoard
                experiment.add_figure(f"figures/{name}", figure, trainer.global_step, close=False)
    figure.clear()
