from full_run import KeepCheckpoint, full_fit

from fer_lightning.outputs.csv_files import read_csv
from fer_lightning.outputs.run_logger import RunLogger


def steps(logger):
    return [int(row["step"]) for row in read_csv(logger.file)]


def test_a_new_metric_adds_a_column_and_keeps_the_rows(tmp_path):
    logger = RunLogger(tmp_path)
    logger.begin(0)
    logger.log_metrics({"epoch": 0, "loss": 2.0}, 4)
    logger.log_metrics({"epoch": 0, "accuracy": 0.5}, 9)
    logger.log_metrics({"loss": 1.0}, 14)
    assert read_csv(logger.file) == [
        {"epoch": "0", "step": "4", "loss": "2", "accuracy": ""},
        {"epoch": "0", "step": "9", "loss": "", "accuracy": "0.5"},
        {"epoch": "", "step": "14", "loss": "1", "accuracy": ""},
    ]


def test_a_resumed_run_keeps_what_came_before_its_checkpoint(tmp_path):
    logger = RunLogger(tmp_path)
    logger.begin(0)
    for step in (9, 19, 29, 39):
        logger.log_metrics({"loss": float(step)}, step)
    resumed = RunLogger(tmp_path)
    resumed.begin(20)  # the rows of steps 29 and 39 were lost with the process
    assert steps(resumed) == [9, 19]
    resumed.log_metrics({"loss": 0.0, "lr": 0.1}, 24)
    assert steps(resumed) == [9, 19, 24]


def test_tests_leave_no_row_among_those_of_the_training(tmp_path):
    logger = RunLogger(tmp_path)
    logger.log_metrics({"val/accuracy": 0.5}, 0)
    assert not logger.file.exists()
    logger.begin(0)
    logger.log_metrics({"loss": 1.0}, 4)
    logger.finalize("success")
    logger.log_metrics({"test/accuracy": 0.5}, 0)
    assert steps(logger) == [4]


def test_log_of_a_resumed_run_equals_that_of_an_uninterrupted_one(tmp_path):
    trainer = full_fit(tmp_path, callbacks=[KeepCheckpoint(7, tmp_path / "mid.ckpt")])
    assert trainer.log_dir == str(tmp_path)
    whole = read_csv(tmp_path / "metrics.csv")
    assert {"train/loss", "lr-SGD/pg1", "val/score", "audit/coverage"} <= whole[0].keys()
    assert {int(row["step"]) for row in whole} == set(range(10))
    full_fit(tmp_path, tmp_path / "mid.ckpt")
    assert read_csv(tmp_path / "metrics.csv") == whole
