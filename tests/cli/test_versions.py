import pytest
from light_method import LightMethod

from fer_lightning.cli.versions import Version, config_hash, merge, stale_rows
from fer_lightning.errors import InputError


@pytest.fixture
def file(tmp_path):
    """Write a YAML file and return its name as a configuration quotes it."""

    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def method(file):
    return file("method.yaml", "model: {class_path: light_method.LightMethod}")


def hash_of(config):
    return config_hash(merge(config))


def test_later_files_and_arguments_win_and_nested_keys_are_merged(file):
    one = file(
        "one.yaml", "model: {class_path: A, init_args: {lr: 1, deep: true}}\ndata: {size: 48, val: null}"
    )
    two = file("two.yaml", "model: {lr: 2}\ndata: {dataset: FER2013}")
    assert merge(f"{one} {two} data.size=32 data.dataset.root=faces model.names='[a, b]'") == {
        "model": {"class_path": "A", "lr": 2, "deep": True, "names": ["a", "b"]},
        "data": {"size": 32, "val": None, "dataset": {"class_path": "FER2013", "root": "faces"}},
    }


def test_where_a_setting_is_written_does_not_change_the_hash(file, method):
    preset = file("preset.yaml", "model: {lr: 0.5}")
    whole = file("whole.yaml", "model: {class_path: light_method.LightMethod, init_args: {lr: 0.5}}")
    assert hash_of(f"{method} {preset}") == hash_of(f"{preset} {method}") == hash_of(whole)
    assert hash_of(whole) == hash_of(f"{method} model.lr=0.5")
    assert hash_of(whole) != hash_of(f"{method} model.lr=0.25")


@pytest.mark.parametrize(
    "argument",
    [
        "seed_everything=3",
        "data.seed=3",
        "data.workers=7",
        "data.dataset.root=/elsewhere",
        "trainer.accelerator=cpu",
        "trainer.devices=4",
        "trainer.default_root_dir=/elsewhere",
    ],
)
def test_the_machine_and_the_seed_do_not_change_the_hash(file, method, argument):
    data = file("data.yaml", "data: {dataset: {class_path: FER2013, init_args: {root: here}}, seed: 0}")
    assert hash_of(f"{method} {data}") == hash_of(f"{method} {data} {argument}")


@pytest.mark.parametrize(
    "argument", ["trainer.max_steps=3", "trainer.precision=bf16-mixed", "data.dataset.val=3", "data.size=1"]
)
def test_what_changes_training_changes_the_hash(file, method, argument):
    data = file("data.yaml", "data: {dataset: {class_path: Drawn}}")
    assert hash_of(f"{method} {data}") != hash_of(f"{method} {data} {argument}")


def test_a_version_has_the_class_and_its_revision(method):
    version = Version.of(f"{method} model.lr=1")
    assert version == (hash_of(f"{method} model.lr=1"), "LightMethod", "1")
    row = {"config_hash": version.config_hash, "revision": "1"}
    assert version.difference(row) == ""
    assert "settings have changed" in version.difference(row | {"config_hash": "0"})
    assert version.difference(row | {"revision": "2"}) == "LightMethod went from revision 2 to 1"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("gone.yaml", r"gone\.yaml"),
        ("data.size=3", "names no method"),
        ("model=fer_lightning.nowhere.Method", r"fer_lightning\.nowhere\.Method"),
        ("model=light_method.Nothing", r"light_method\.Nothing"),
    ],
)
def test_a_configuration_without_files_or_method_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        Version.of(config)


def test_rows_are_stale_by_their_own_configuration_or_by_that_of_the_matrix(file, method, monkeypatch):
    config = f"{method} model.lr=1"
    good = {"name": "a", "seed": "0", "config": config, "config_hash": hash_of(config), "revision": "1"}
    rows = [
        good,
        good | {"seed": "1", "config_hash": "0"},
        good | {"seed": "2", "revision": "0"},
        good | {"seed": "3", "config": "gone.yaml"},
        {"name": "a", "seed": "4"},  # of a file from before there were hashes
    ]
    assert stale_rows(rows) == {("a", seed) for seed in "1234"}
    assert stale_rows([good], {"a": f"{method} model.lr=2"}) == {("a", "0")}
    assert stale_rows([good], {"b": f"{method} model.lr=2"}) == set()
    monkeypatch.setattr(LightMethod, "revision", 2)
    assert stale_rows([good]) == {("a", "0")}
