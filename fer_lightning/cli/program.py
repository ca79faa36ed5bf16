"""The command line program: Lightning's own verbs over our methods and data, and a few of ours.

fer-lightning fit --config experiments/trainer.yaml --config experiments/data/fer2013.yaml \
        --config experiments/methods/fixmatch.yaml --data.labels_per_class 100 --data.seed 1
"""

import logging
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lightning.errors import InputError

_RUN_DIR = "FER_LIGHTNING_RUN_DIR"


def run_lightning(args: Sequence[str] | None) -> None:
    """Run one of Lightning's verbs: fit, validate, test or predict."""
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    import fer_lightning.data.datasets
    import fer_lightning.data.synthetic
    import fer_lightning.methods  # noqa: F401  (imported, its classes can be named without their module)
    from fer_lightning.callbacks import (
        RunLogger,
        SafeCheckpointIO,
        SaveRunConfig,
        resume_wandb,
        run_callbacks,
    )
    from fer_lightning.data.datamodule import SemiSupervisedFaces
    from fer_lightning.methods.base import SemiSupervised

    _quiet()

    class Program(LightningCLI):
        """Lightning's program with a run directory: what a run writes lies there, and nowhere else."""

        run_dir: Path

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.set_defaults({"trainer.use_distributed_sampler": False})

        def before_instantiate_classes(self) -> None:
            config = self.config[self.subcommand]
            if config.trainer.use_distributed_sampler:
                raise InputError(
                    "the samplers here are rank-aware: set --trainer.use_distributed_sampler false"
                )
            checkpoint = config.get("ckpt_path")
            if (
                checkpoint and "." in checkpoint and not Path(checkpoint).is_file()
            ):  # else a word of Lightning's
                raise InputError(f"--ckpt_path: {checkpoint} does not exist")
            self.run_dir = choose_run_dir(
                str(self.subcommand),
                config.trainer.default_root_dir,
                checkpoint,
                config.model.class_path,
            )
            config.trainer.default_root_dir = str(self.run_dir)
            for logger in (
                config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
            ):
                options = getattr(logger, "init_args", {})  # W&B writes into the run too, unless told where
                if options.get("save_dir") == ".":
                    options["save_dir"] = str(self.run_dir)
            if self.subcommand == "predict":
                config.return_predictions = False  # they are streamed to predictions.csv
            if not config.trainer.fast_dev_run:
                check_writable(self.run_dir)

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            config = self._get(self.config_init, "trainer")
            if not config.fast_dev_run:
                wanted = config.logger if isinstance(config.logger, list) else [config.logger]
                loggers = [RunLogger(self.run_dir), *(each for each in wanted if each and each is not True)]
                resume_wandb(loggers, self._get(self.config_init, "ckpt_path"))
                callbacks = config.callbacks if isinstance(config.callbacks, list) else [config.callbacks]
                if (
                    config.max_epochs is None and config.max_steps > 0
                ):  # for the progress bar, which counts epochs
                    per_epoch = max(1, self.datamodule.steps_per_epoch // config.accumulate_grad_batches)
                    kwargs["max_epochs"] = -(-config.max_steps // per_epoch)
                kwargs |= {
                    "logger": loggers,
                    "callbacks": [*(each for each in callbacks if each), *run_callbacks(self.run_dir)],
                    "plugins": [*(config.plugins or []), SafeCheckpointIO()],
                }
            return super().instantiate_trainer(**kwargs)

    Program(
        SemiSupervised,
        SemiSupervisedFaces,
        subclass_mode_model=True,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"overwrite": True},  # a directory with a run in it was refused before
        seed_everything_default=0,
        parser_kwargs={"prog": "fer-lightning"},
        args=args if args is None else list(args),
    )


def _quiet() -> None:
    """Leave out what Lightning says that no user of this program can act on."""
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )


def choose_run_dir(verb: str, asked: str | None, checkpoint: str | None, method: str) -> Path:
    """Return where a run writes.

    That is the directory asked for; else, given a checkpoint, the run that wrote it; else a new one,
    ``runs/<method>-<time>``.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        asked: ``--trainer.default_root_dir``.
        checkpoint: ``--ckpt_path``.
        method: class of the method.

    Raises:
        InputError: if a new run would write over an old one.
    """
    if asked is not None:
        run_dir = Path(asked)
    elif checkpoint is not None and Path(checkpoint).parent.name == "checkpoints":
        run_dir = Path(checkpoint).parent.parent
    else:
        # Lightning starts the other ranks with the same command line and a copy of this environment.
        name = f"{method.rpartition('.')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
        run_dir = Path(os.environ.setdefault(_RUN_DIR, f"runs/{name}"))
    if (
        verb == "fit"
        and checkpoint is None
        and "LOCAL_RANK" not in os.environ
        and (run_dir / "run.json").exists()
    ):
        last = run_dir / "checkpoints" / "last.ckpt"
        go_on = f"Continue it with --ckpt_path {last}, or" if last.exists() else "It saved nothing;"
        raise InputError(
            f"{run_dir} already holds a run. {go_on} choose another directory with --trainer.default_root_dir"
        )
    return run_dir


def check_writable(run_dir: Path) -> None:
    """Make the run directory and write to it, before any work is done.

    Raises:
        InputError: if that is not possible.
    """
    probe = run_dir / ".writable"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the run directory {run_dir} ({error.strerror}); choose another with "
            "--trainer.default_root_dir"
        ) from error
