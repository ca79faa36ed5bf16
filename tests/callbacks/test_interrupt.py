import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import lightning as L
import pytest
import torch
from full_run import full_fit

from fer_lightning.callbacks import Interrupted
from fer_lightning.callbacks.interrupt import SIGNALS
from fer_lightning.data.batches import _begin_worker
from fer_lightning.outputs.csv_files import read_csv

TESTS = Path(__file__).parents[1]


class Press(L.Callback):
    """Sends this process a signal during a batch, counted from 1 over the run, or during the validation."""

    def __init__(self, batch=None, number=signal.SIGINT, times=1, epoch=None):
        self.batch, self.number, self.times, self.epoch = batch, number, times, epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.batches_taken + 1 == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def on_validation_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.number)


def last(run_dir):
    return run_dir / "checkpoints" / "last.ckpt"


def weights(run_dir):
    return torch.load(last(run_dir), weights_only=True)["state_dict"]


def assert_same_run(run_dir, other):
    ours, theirs = weights(run_dir), weights(other)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    for table in ("pseudo_labels.csv", "metrics.csv"):
        rows, others = read_csv(run_dir / table), read_csv(other / table)
        assert rows == others, table


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    full_fit(run_dir)
    return run_dir


@pytest.mark.parametrize(
    "limit", [{"max_epochs": 2}, {"max_epochs": 2, "max_steps": 10}], ids=["epochs", "steps"]
)
@pytest.mark.parametrize(
    ("press", "saved_after"),
    [
        pytest.param({"batch": 3}, 3, id="mid-epoch"),
        pytest.param({"batch": 7, "number": signal.SIGTERM}, 7, id="sigterm"),
        pytest.param({"batch": 2, "number": signal.SIGHUP}, 2, id="sighup"),
        pytest.param({"batch": 5}, 5, id="last-batch-of-an-epoch"),
        pytest.param({"epoch": 0}, 5, id="validation"),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, capfd, whole, press, saved_after, limit):
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted) as raised:
        full_fit(tmp_path, callbacks=[Press(**press)], **limit)
    assert raised.value.code == 130
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert torch.load(last(tmp_path), weights_only=True)["global_step"] == saved_after
    assert f"--ckpt_path {last(tmp_path)}" in capfd.readouterr().err
    full_fit(tmp_path, last(tmp_path), **limit)
    assert_same_run(tmp_path, whole)


def test_under_nohup_the_end_of_the_terminal_is_not_that_of_the_training(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        trainer = full_fit(tmp_path, callbacks=[Press(3, signal.SIGHUP)])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert trainer.global_step == 10


def test_gradients_are_accumulated_to_the_end_before_stopping(tmp_path):
    with pytest.raises(Interrupted):
        full_fit(tmp_path, callbacks=[Press(3)], accumulate_grad_batches=2)
    progress = torch.load(last(tmp_path), weights_only=True)["loops"]["fit_loop"]
    assert progress["epoch_loop.batch_progress"]["total"]["ready"] == 4


def test_asked_in_the_last_epoch_s_validation_a_run_just_ends(tmp_path, whole):
    full_fit(tmp_path, callbacks=[Press(epoch=1)])
    assert_same_run(tmp_path, whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(SystemExit) as raised:
        full_fit(tmp_path, callbacks=[Press(3, times=2)])
    assert not isinstance(raised.value, Interrupted)
    assert not last(tmp_path).exists()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it from here on


def test_a_run_outside_the_main_thread_leaves_signals_alone(tmp_path):
    failures = []

    def run():
        try:
            full_fit(tmp_path, max_epochs=1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures
    assert last(tmp_path).exists()


def test_a_signal_to_the_whole_process_group_reaches_the_workers_too(tmp_path):
    """As a terminal, SLURM, systemd and containers send it; workers that died of it would end the run."""
    program = textwrap.dedent(
        """
        import os, signal, sys, time
        from pathlib import Path
        from faces import TINY, tiny_data
        from full_run import full_fit
        from fer_lightning.callbacks import Interrupted
        from fer_lightning.data.views import WeakView
        from fer_lightning.methods import FixMatch

        class Slow(WeakView):
            def draw(self, *arguments):
                time.sleep(0.001)
                return super().draw(*arguments)

        class Signaled(FixMatch):
            def on_train_batch_end(self, *arguments):  # comes after every callback: the next batch is needed
                if self.global_step == 3:
                    os.killpg(0, signal.Signals[name])

        for name in sys.argv[2:]:
            data = tiny_data(workers=2, weak=Slow(), steps_per_epoch=20)
            try:
                full_fit(Path(sys.argv[1]) / name, method=Signaled(**TINY), data=data)
            except Interrupted as stopped:
                print(name, stopped.code)
        """
    )
    names = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    for name in names:
        assert f"{name} 130" in done.stdout
        assert f"{name}: stopping at the next safe moment" in done.stderr
        assert torch.load(last(tmp_path / name), weights_only=True)["global_step"] == 4


def test_a_worker_that_hangs_still_ends_after_a_sigterm(monkeypatch):
    """The training process ends its workers by that signal."""
    alarms = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    try:
        _begin_worker(0)
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        assert alarms == [600]
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
