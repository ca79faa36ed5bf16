"""Lightning's verbs over the methods and data of this package: fit, validate, test and predict.

fer-lightning fit --config experiments/trainer.yaml --config experiments/data/fer2013.yaml \
        --config experiments/methods/fixmatch.yaml --data.labels_per_class 100 --data.seed 1
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import fer_lightning.data.datasets
import fer_lightning.data.synthetic
import fer_lightning.methods  # noqa: F401  (imported, its classes can be named without their module)
from fer_lightning.callbacks import BestCheckpoint, EpochCount, SaveRunConfig, run_callbacks, wandb_run_id
from fer_lightning.cli.run_directory import (
    Resume,
    check_writable,
    choose_place,
    first_process,
    forget_run_dir,
    lock,
    remove_unused,
)
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.errors import InputError
from fer_lightning.methods.base import DEFAULT_EMOTIONS, SemiSupervised
from fer_lightning.outputs.checkpoint_files import BEST, LAST, SafeCheckpointIO, read_checkpoint
from fer_lightning.outputs.run_logger import RunLogger
from fer_lightning.ranges import PositiveFloat, PositiveInt

_LOG = logging.getLogger("lightning.pytorch.utilities.rank_zero")
REFUSALS = (MisconfigurationException, ImportError, KeyError, RuntimeError, TypeError, ValueError)
"""What Lightning's Trainer raises about its options."""
RUN_OPTIONS: dict[str, tuple[Any, Any]] = {
    "resume": (Resume, "never"),
    "change_length": (bool, False),
    "checkpoint_every_n_steps": (PositiveInt | None, None),
    "checkpoint_every_minutes": (PositiveFloat | None, 10.0),
}
"""Type and default of the options on the checkpoints of a run."""
DEFAULT_MAX_STEPS = 20_000
"""Length of a training for which neither steps nor epochs nor time are given."""


class Program(LightningCLI):
    """Lightning's program with a run directory, where everything that a run writes lies.

    It parses the command line, builds trainer, method and data, and runs the verb. Afterwards they are there
    as ``trainer``, ``model`` and ``datamodule``, to go on with them in Python:

        >>> from fer_lightning.cli.program import Program
        >>> words = "fit --model FixMatch --data.dataset SyntheticFaces --data.labels_per_class 4"
        >>> words += " --model.backbone wrn_10_1 --data.batch_size 8 --trainer.max_steps 2"
        >>> program = Program(words.split())
        >>> steps = program.model.global_step

    Args:
        args: the command line without the program's name; that of the process if None.

    Attributes:
        run_dir: the run directory.

    Raises:
        InputError: if something given is wrong.
        argparse.ArgumentError: if the command line cannot be parsed.
    """

    run_dir: Path

    def __init__(self, args: Sequence[str] | None = None) -> None:
        _quiet()
        try:
            super().__init__(
                SemiSupervised,
                SemiSupervisedFaces,
                subclass_mode_model=True,
                save_config_callback=SaveRunConfig,
                save_config_kwargs={"overwrite": True},  # a directory with a run in it was refused before
                trainer_defaults={"num_sanity_val_steps": 0},  # an untrained network has nothing to show
                seed_everything_default=0,
                auto_configure_optimizers=False,  # optimizer and schedule are options of the method
                load_from_checkpoint_support=False,  # a checkpoint is to name no class that would be imported
                parser_kwargs={"prog": "fer-lightning", "exit_on_error": False, "allow_abbrev": False},
                args=args if args is None else list(args),
            )
        except BaseException:
            if hasattr(self, "run_dir"):
                remove_unused(self.run_dir)
            raise
        finally:
            forget_run_dir()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verbs, and the arguments of Lightning's functions that are no options of theirs.

        Checkpoints are always opened without running code, and predictions always streamed, see ``predict``.
        """
        verbs = LightningCLI.subcommands()
        return {verb: skipped | {"weights_only", "return_predictions"} for verb, skipped in verbs.items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a run is told about its checkpoints; all verbs take it, so that config.yaml fits all."""
        for name, (kind, default) in RUN_OPTIONS.items():
            parser.add_argument(f"--{name}", type=kind, default=default)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and keep the checkpoint from Lightning until the run directory is chosen.

        Lightning would take the options of the method from the checkpoint, in the place of those given and
        without a word. Here the two are compared when it is loaded.
        """
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        self._checkpoint, config.ckpt_path = config.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        """Choose the run directory and checkpoint, and fill in what depends on them or on the verb."""
        config, verb = self.config[self.subcommand], str(self.subcommand)
        trainer, method = config.trainer, config.model
        _check_trainer(trainer)
        configs = [Path(str(each)) for each in config.get("config") or []]
        self.run_dir, checkpoint = choose_place(
            verb,
            method.class_path,
            trainer.default_root_dir or None,
            self._checkpoint,
            config.resume,
            configs,
        )
        trainer.default_root_dir = str(self.run_dir)
        if checkpoint is not None:
            config.ckpt_path = str(checkpoint)
            read_checkpoint(checkpoint)  # before anything else is built or read
            if self._checkpoint != str(checkpoint):
                _print(f"{'Going on from' if verb == 'fit' else f'To {verb}:'} {checkpoint}")
            if verb != "fit":  # weights that the checkpoint replaces need not be there
                method.init_args.weights, method.init_args.pretrained = None, False
        emotions = method.get("init_args", {})
        if config.data.emotions is not None and emotions.get("emotions") == DEFAULT_EMOTIONS:
            emotions["emotions"] = config.data.emotions  # those of the data are the model's
        if verb == "fit":
            _set_length(trainer, config.data)
        for logger in _wandb_loggers(trainer.logger):
            if logger.save_dir == ".":  # W&B writes into the run too, unless told where
                logger.save_dir = str(self.run_dir)
        if not trainer.fast_dev_run and first_process():
            check_writable(self.run_dir)
            if verb == "fit":
                self._lock = lock(self.run_dir)

    def instantiate_classes(self) -> None:
        """Build everything; a Weights & Biases logger goes on with the run of the checkpoint.

        Its id is no part of the run's ``config.yaml``, which can start another run.
        """
        config = self.config[self.subcommand]
        fresh = [each for each in _wandb_loggers(config.trainer.logger) if not (each.id or each.version)]
        checkpoint = config.get("ckpt_path")
        run_id = wandb_run_id(checkpoint) if fresh and checkpoint and Path(checkpoint).is_file() else None
        for logger in fresh:
            logger.id = run_id
        super().instantiate_classes()
        for logger in fresh:
            logger.id = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer with the callbacks, the log and the checkpoints of every run."""
        config = self.config_init[self.subcommand].trainer
        if not config.fast_dev_run:
            run = self.config_init[self.subcommand]
            loggers = [each for each in _listed(config.logger) if each is not True]
            kwargs |= {
                "logger": [RunLogger(self.run_dir), *loggers],
                "callbacks": [
                    *_listed(config.callbacks),
                    *run_callbacks(
                        self.run_dir,
                        every_n_steps=run.checkpoint_every_n_steps,
                        every_minutes=run.checkpoint_every_minutes,
                        change_length=run.change_length,
                    ),
                ],
                "plugins": [*_listed(config.plugins), SafeCheckpointIO()],
            }
            if config.max_epochs is None and config.max_steps > 0:
                kwargs["max_epochs"] = config.max_steps  # which never cuts: an epoch has a step at least
                kwargs["callbacks"].append(EpochCount())
            if SLURMEnvironment.detect():  # its own reaction to SIGUSR1 would save and requeue beside ours
                kwargs["plugins"].append(SLURMEnvironment(auto_requeue=False))
        try:
            if config.strategy == "auto" and _device_count(config) > 1:
                kwargs["strategy"] = "ddp_find_unused_parameters_true"  # a head can be idle for some steps
            return super().instantiate_trainer(**kwargs)
        except REFUSALS as error:
            if isinstance(error, InputError):
                raise
            # Lightning's refusals, of whatever type, are about its own options and say what is wrong.
            raise InputError(f"Lightning's Trainer refuses its options: {error}", option="trainer") from error

    def predict(self, **kwargs: Any) -> None:
        """Predict, and keep nothing: predictions are streamed into their file."""
        self.trainer.predict(**kwargs, return_predictions=False)

    def after_fit(self) -> None:
        """Print where the run is, its best epoch and the next command."""
        if self.trainer.is_global_zero and not self.config_init.fit.trainer.fast_dev_run:
            for line in self._summary():
                print(line)

    def _summary(self) -> list[str]:
        checkpoints, config = self.run_dir / "checkpoints", self.run_dir / "config.yaml"
        best, last = checkpoints / BEST, checkpoints / LAST
        lines = [f"Trained {self.trainer.global_step:,} steps; everything is in {self.run_dir}"]
        kept = next(each for each in self.trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint))
        if kept.best_model_score is not None and best.exists():
            epoch, end = read_checkpoint(best)["epoch"], self.trainer.current_epoch - 1
            lines.append(f"Best epoch {epoch} of 0 to {end}: val/score {kept.best_model_score:.4f}")
        verb, option = "test", ""
        if not len(self.datamodule.test):
            parts = (each for each in ("unlabeled", "val", "labeled") if len(getattr(self.datamodule, each)))
            verb, option = "predict", f" --data.predict_on {next(parts)}"
        file = best if best.exists() else last
        return [*lines, f"Next: fer-lightning {verb} --config {config} --ckpt_path {file}{option}"]


def run(args: Sequence[str] | None) -> None:
    """Run one of Lightning's verbs.

    Args:
        args: the command line without the program's name; that of the process if None.

    Raises:
        InputError: if something given is wrong.
        argparse.ArgumentError: if the command line cannot be parsed.
    """
    Program(args)


_LOWEST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "limit_val_batches": 0,
    "log_every_n_steps": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
}
"""Lowest values of options that Lightning does not check."""
_PRECISIONS = {None, "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed"}


def _check_trainer(trainer: Any) -> None:
    """Refuse options of the trainer with which a run would not be one.

    Raises:
        InputError: naming the option.
    """
    if trainer.barebones:
        raise InputError("barebones: a run without log and checkpoints is none", option="trainer.barebones")
    if trainer.enable_checkpointing is False:
        raise InputError(
            "enable_checkpointing: a run keeps its checkpoints; leave it out",
            option="trainer.enable_checkpointing",
        )
    for name, lowest in _LOWEST.items():
        if (value := trainer.get(name)) is not None and value < lowest:
            raise InputError(f"{name} must be at least {lowest}, not {value}", option=f"trainer.{name}")
    if trainer.val_check_interval == 0:
        raise InputError(
            "val_check_interval must be above 0; limit_val_batches 0 leaves validation out",
            option="trainer.val_check_interval",
        )
    if trainer.overfit_batches:
        raise InputError(
            "overfit_batches would draw other batches than the method's; give few labels and steps instead",
            option="trainer.overfit_batches",
        )
    if (None if trainer.precision is None else str(trainer.precision)) not in _PRECISIONS:
        raise InputError(
            f"{trainer.precision} is not supported, as losses and thresholds are computed in float32: use "
            "32-true, bf16-mixed or 16-mixed",
            option="trainer.precision",
        )


def _set_length(trainer: Any, data: Any) -> None:
    """Give a training without a length one, and make room for a validation in a short one.

    Args:
        trainer: options of the trainer, changed in place.
        data: options of the data, changed in place.
    """
    if trainer.max_steps == -1 and not (trainer.max_epochs or trainer.max_time):
        trainer.max_steps = DEFAULT_MAX_STEPS
        _print(f"Training for {DEFAULT_MAX_STEPS:,} steps; --trainer.max_steps sets another number")
    batches = trainer.max_steps * trainer.accumulate_grad_batches
    if 0 < batches < data.steps_per_epoch:
        data.steps_per_epoch = batches
        _print(f"Validating once, after step {trainer.max_steps:,}; --data.steps_per_epoch sets how often")


def _wandb_loggers(loggers: Any) -> list[Any]:
    """Return the arguments of the Weights & Biases loggers of a configuration, to be changed in place."""
    specs = [each for each in _listed(loggers) if hasattr(each, "class_path")]
    return [each.init_args for each in specs if each.class_path.rpartition(".")[2] == "WandbLogger"]


def _listed(value: Any) -> list[Any]:
    """Return the parts of an option that takes nothing, one part or a list of them."""
    if isinstance(value, list):
        return [each for each in value if each]
    return [value] if value else []


def _device_count(config: Any) -> int:
    """Return the number of devices, over all nodes, that a trainer of this configuration would have."""
    if str(config.devices) == "1" and config.num_nodes == 1:
        return 1
    _LOG.disabled = True  # the trainer of the run reports the devices
    try:
        probe = L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    finally:
        _LOG.disabled = False
    return int(probe.num_devices * probe.num_nodes)


def _print(line: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line)


def _quiet() -> None:
    """Leave out the messages of Lightning that no user of this program can act on."""
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # they are the process's own
    _LOG.addFilter(_useful)
    package = logging.getLogger("fer_lightning")
    if not any(isinstance(each, _ToStandardError) for each in package.handlers):
        package.addHandler(_ToStandardError(logging.INFO if first_process() else logging.CRITICAL))
        package.setLevel(logging.INFO)


class _ToStandardError(logging.Handler):
    """Prints what the package reports, such as the split and how much of a weight file matched."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


def _useful(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "litlogger" not in message and "to estimate number of stepping batches" not in message
