"""The losses of ten tiny steps of every method, and of its predictions afterwards, are those on record.

A change of these numbers is a change of behavior: result rows of before are no longer those of the class, and
its ``revision`` is raised so that they count as stale. After that, or for a new method::

    RENEW_REVISIONS=1 python -m pytest tests/methods/test_revisions.py

writes the numbers of the classes whose revision was raised into ``revisions.json``.
"""

import json
import os
from pathlib import Path

import lightning as L
import pytest
import torch
from every import METHODS, build, data
from faces import quiet_trainer
from lightning.pytorch.callbacks import Callback

FILE = Path(__file__).with_name("revisions.json")
ADVICE = """{name} learns something else than revision {revision} did:
  on record {record}
  now       {now}
If that is meant, raise `revision` in its class and run
  RENEW_REVISIONS=1 python -m pytest {test}"""
# Some pseudo-labels are accepted and others rejected, thresholds and teachers move within ten steps, and what
# begins at some epoch begins in the first.
OPTIONS = {
    "ada_cm": {"min_margin": 0.18, "lr": 0.005, "ema_decay": 0.9},
    "comatch": {"threshold": 0.2},
    "dta_snl": {
        **{"max_threshold": 0.3, "min_threshold": 0.1, "momentum": 0.5, "start_epoch": 1},
        **{"lr": 0.005, "ema_decay": 0.9},
    },
    "fixmatch": {"threshold": 0.2},
    "flexmatch": {"threshold": 0.3, "threshold_warmup": False},
    "freematch": {"momentum": 0.5, "fairness_weight": 0.01},
    "pseudo_label": {"threshold": 0.2},
    "scl_uerm_arm": {"threshold": 0.2, "relabel_epoch": 1},
    "simmatch": {"threshold": 0.2},
    "sit_fer": {"threshold": 0.35, "text_anchor": "simplex"},
    "softmatch": {"momentum": 0.5},
    "sser": {"threshold": 0.2},
    "uda": {"threshold": 0.2},
}
ALL_ACCEPTED = ("mean_teacher", "mixmatch")


class Losses(Callback):
    def __init__(self):
        self.values, self.weights = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))
        if outputs["pseudo"] is not None:
            self.weights += outputs["pseudo"].weight.tolist()


def measure(name, tmp_path):
    """Train for ten steps, two of them on labels alone; return losses and weights of pseudo-labels."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        L.seed_everything(0, verbose=False)
        method, faces, losses = (
            build(name, labeled_only_steps=2, **OPTIONS.get(name, {})),
            data(name),
            Losses(),
        )
        trainer = quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=0, callbacks=[losses])
        trainer.fit(method, faces)
        nll = inference_loss(method, faces)
    finally:
        torch.set_num_threads(threads)
    assert len(losses.values) == 10
    return [*losses.values, nll], losses.weights


@torch.no_grad()
def inference_loss(method, faces):
    """Mean cross-entropy of the predictions on the validation faces."""
    method.eval()
    nll = []
    for batch in faces.val_dataloader():
        real = batch.index >= 0
        right = method(batch.image[real]).emotion[batch.target.emotion[real] > 0]
        nll.append(-right.log())
    return float(torch.cat(nll).mean())


def digits(values):
    return [f"{value:.4g}" for value in values]


def recorded():
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def record(name, revision, values):
    entries = recorded() | {name: {"revision": revision, "losses": digits(values)}}
    lines = (f" {json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries))
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_are_those_of_the_revision(name, tmp_path):
    revision = METHODS[name].revision
    now, weights = measure(name, tmp_path)
    if name != "supervised":
        assert sum(weights) > 0, "no pseudo-label is accepted: the numbers would not notice a change"
        assert (min(weights) < 0.99) != (name in ALL_ACCEPTED), "all pseudo-labels are accepted"
    entry = recorded().get(name)
    renew = "RENEW_REVISIONS" in os.environ
    if renew and (entry is None or revision > entry["revision"]):
        record(name, revision, now)
        return
    assert entry is not None, f"{name} is not on record: RENEW_REVISIONS=1 python -m pytest {__file__}"
    same = now == pytest.approx([float(value) for value in entry["losses"]], rel=1e-3)
    advice = ADVICE.format(
        name=name,
        revision=entry["revision"],
        record=" ".join(entry["losses"]),
        now=" ".join(digits(now)),
        test=Path(__file__).name,
    )
    assert same or revision > entry["revision"], advice
    assert revision == entry["revision"], f"renew the record of {name}: RENEW_REVISIONS=1"


def test_nothing_is_on_record_that_is_no_method():
    assert recorded().keys() <= METHODS.keys()


def test_a_change_of_behavior_is_found(tmp_path, monkeypatch):
    whole, _ = measure("fixmatch", tmp_path)
    assert measure("fixmatch", tmp_path)[0] == whole
    monkeypatch.setitem(OPTIONS, "fixmatch", OPTIONS["fixmatch"] | {"unlabeled_weight": 0.98})
    assert measure("fixmatch", tmp_path)[0] != pytest.approx(whole, rel=1e-3)
    monkeypatch.setitem(
        OPTIONS, "fixmatch", {"threshold": 0.2, "ema_decay": 0.5}
    )  # moves the predictions alone
    teacher = measure("fixmatch", tmp_path)[0]
    assert teacher[:-1] == pytest.approx(whole[:-1], rel=1e-6)
    assert teacher[-1] != pytest.approx(whole[-1], rel=1e-3)


def test_only_a_raised_revision_renews_the_record(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "FILE", tmp_path / "revisions.json")
    monkeypatch.setenv("RENEW_REVISIONS", "1")
    test_the_losses_are_those_of_the_revision("fixmatch", tmp_path)
    first = recorded()
    monkeypatch.setitem(OPTIONS, "fixmatch", OPTIONS["fixmatch"] | {"unlabeled_weight": 0.5})
    with pytest.raises(AssertionError, match="raise `revision` in its class"):
        test_the_losses_are_those_of_the_revision("fixmatch", tmp_path)
    assert recorded() == first
    monkeypatch.setattr(METHODS["fixmatch"], "revision", METHODS["fixmatch"].revision + 1)
    test_the_losses_are_those_of_the_revision("fixmatch", tmp_path)
    assert recorded()["fixmatch"]["revision"] == first["fixmatch"]["revision"] + 1
    monkeypatch.delenv("RENEW_REVISIONS")
    test_the_losses_are_those_of_the_revision("fixmatch", tmp_path)
