import yaml

from fer_lightning.cli import main


def program(run_dir, verb, *options):
    return main(
        [
            verb,
            "--model=FixMatch",
            "--model.backbone=wrn_10_1",
            "--model.backbone_arguments={width: 0.25}",
            "--data.dataset=faces.TinyFaces",
            "--data.labels_per_class=4",
            "--data.batch_size=14",
            "--data.unlabeled_ratio=2",
            "--data.steps_per_epoch=2",
            "--data.image_size=16",
            "--data.workers=0",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            f"--trainer.default_root_dir={run_dir}",
            "--trainer.logger=CSVLogger",
            f"--trainer.logger.save_dir={run_dir / 'other'}",
            *options,
        ]
    )


def test_config_is_that_of_the_training(tmp_path):
    run_dir, last = tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert program(run_dir, "fit", "--trainer.max_epochs=1", "--model.threshold=0.9") == 0
    written = (run_dir / "config.yaml").read_text()
    config = yaml.safe_load(written)
    assert config["model"]["init_args"]["threshold"] == 0.9
    assert config["data"]["labels_per_class"] == 4
    (told,) = (run_dir / "other").rglob("hparams.yaml")
    told = yaml.unsafe_load(told.read_text())
    assert told["model"]["init_args"]["threshold"] == 0.9
    assert len(told["split"]) == 64

    assert program(run_dir, "test", f"--ckpt_path={last}", "--model.threshold=0.9") == 0
    assert (run_dir / "config.yaml").read_text() == written

    longer = ["--trainer.max_epochs=2", "--model.threshold=0.9", f"--ckpt_path={last}"]
    assert program(run_dir, "fit", *longer) == 2  # a longer schedule is asked for by name
    assert (run_dir / "config.yaml").read_text() == written
    assert program(run_dir, "fit", *longer, "--change_length=true") == 0
    resumed = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert resumed["ckpt_path"] is None  # the file can start the run again, wherever this one went on
    assert resumed["trainer"].pop("max_epochs") == 2
    assert config["trainer"].pop("max_epochs") == 1
    assert resumed == config
