"""A run of the program, as small as one with everything around it can be."""

from pathlib import Path

from fer_lightning.cli import main


def small_options(run_dir: Path, *options: str, method: str = "FixMatch") -> list[str]:
    """Options of a training on synthetic faces for two epochs of eight batches."""
    return [
        f"--model={method}",
        "--model.backbone=wrn_10_1",
        "--model.backbone_arguments={width: 0.25}",
        "--data.dataset=fer_lightning.data.synthetic.SyntheticFaces",
        "--data.dataset.train=70",
        "--data.dataset.val=14",
        "--data.dataset.test=28",
        "--data.image_size=16",
        "--data.batch_size=14",
        "--data.unlabeled_ratio=2",
        "--data.steps_per_epoch=8",
        "--data.workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=2",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={run_dir}",
        *options,
    ]


def small_run(run_dir: Path, *options: str, method: str = "FixMatch") -> Path:
    """Train on synthetic faces for two epochs of eight batches and return the last checkpoint."""
    assert main(["fit", *small_options(run_dir, *options, method=method)]) == 0
    return run_dir / "checkpoints" / "last.ckpt"
