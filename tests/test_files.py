import errno
import os
import resource

import pytest
import torch
from full_run import full_fit

from fer_lightning.errors import InputError
from fer_lightning.files import NotWritten, write_atomically
from fer_lightning.outputs.checkpoint_files import CheckpointNotSaved, SafeCheckpointIO

CONTENT = {"weights": torch.arange(100_000)}


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path):
    file = tmp_path / "new" / "note.txt"
    for text in ("first\n", "second\r\n"):
        with write_atomically(file) as stream:
            stream.write(text)
        assert file.read_bytes() == text.encode()
    with write_atomically(file, "wb") as stream:
        stream.write(b"\xff")
    assert file.read_bytes() == b"\xff"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyError("row")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "note.txt"
    file.write_text("old")

    def write():
        with write_atomically(file) as stream:
            stream.write("new")
            assert file.read_text() == "old"
            raise error

    with pytest.raises(NotWritten if isinstance(error, OSError) else KeyError):
        write()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_unwritable_file_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    match = r"cannot write .*file/note\.txt: .*; .* Make room .*, then start again; .*ckpt_path"
    with pytest.raises(NotWritten, match=match), write_atomically(tmp_path / "file" / "note.txt"):
        pass


@pytest.fixture
def saved(tmp_path):
    file = tmp_path / "checkpoints" / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"old": torch.ones(3)}, file)
    return file


def assert_old_one_is_intact(file):
    assert torch.equal(torch.load(file, weights_only=True)["old"], torch.ones(3))
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_checkpoint_replaces_the_one_before(saved):
    SafeCheckpointIO().save_checkpoint(CONTENT, saved)
    assert torch.equal(torch.load(saved, weights_only=True)["weights"], CONTENT["weights"])
    assert [each.name for each in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(saved, monkeypatch, function):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(CheckpointNotSaved) as raised:
        SafeCheckpointIO().save_checkpoint(CONTENT, saved)
    assert isinstance(raised.value, InputError)  # the program shows its message alone
    for part in (str(saved), "No space left on device", "MiB are free", "intact", "ckpt_path"):
        assert part in str(raised.value)
    assert_old_one_is_intact(saved)


def test_a_write_that_ends_in_the_middle_leaves_the_old_checkpoint(saved):
    """The kernel refuses the rest of the file, as on a full disk: torch wraps its error in another."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointNotSaved, match="File too large"):
            SafeCheckpointIO().save_checkpoint(CONTENT, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_old_one_is_intact(saved)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointNotSaved, match=r"file/last.ckpt: .*There was none before it"):
        SafeCheckpointIO().save_checkpoint(CONTENT, tmp_path / "file" / "last.ckpt")


def test_other_errors_are_not_blamed_on_the_disk(saved):
    with pytest.raises((AttributeError, TypeError)):
        SafeCheckpointIO().save_checkpoint({"code": lambda: None}, saved)
    assert_old_one_is_intact(saved)


def test_a_run_on_a_full_disk_stops_with_its_last_epoch_kept(tmp_path, monkeypatch):
    full_fit(tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    replace = os.replace

    def full(new, file):
        if file.suffix == ".ckpt":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(new, file)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointNotSaved):
        full_fit(tmp_path, last, max_epochs=2, change_length=True)
    assert last.read_bytes() == before
