import inspect
from pathlib import Path

import pytest
import yaml

import fer_lightning.methods
from fer_lightning.cli.matrix_file import read_matrix
from fer_lightning.cli.versions import Version, merge
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.errors import InputError
from fer_lightning.methods.base import SemiSupervised


@pytest.fixture
def write(tmp_path):
    def write(runs, **more):
        (tmp_path / "common.yaml").write_text("model: {class_path: light_method.LightMethod}")
        content = {
            "results": str(tmp_path / "results.csv"),
            "root": str(tmp_path / "runs"),
            "configs": [str(tmp_path / "common.yaml")],
            "runs": runs,
        }
        file = tmp_path / "matrix.yaml"
        file.write_text(yaml.safe_dump(content | more))
        return file

    return write


def test_seeds_come_one_after_the_other_and_a_run_may_have_its_own(write):
    matrix = read_matrix(
        write([{"name": "supervised"}, {"name": "fully_supervised", "seeds": [0]}], seeds=[0, 1])
    )
    assert [(cell.name, cell.seed) for cell in matrix.cells()] == [
        ("supervised", 0),
        ("fully_supervised", 0),
        ("supervised", 1),
    ]


def test_arguments_and_configs_of_a_run_come_after_the_common_ones(tmp_path, write):
    (tmp_path / "own.yaml").touch()
    runs = [{"name": "fully_supervised", "configs": [str(tmp_path / "own.yaml")], "args": {"a": 2}}]
    (cell,) = read_matrix(write(runs, args={"a": 1, "b": True})).cells()
    assert cell.config == f"{tmp_path}/common.yaml {tmp_path}/own.yaml a=2 b=true"


@pytest.mark.parametrize(
    ("runs", "more", "message"),
    [
        ([{"nmae": "supervised"}], {}, "nmae"),
        ([{"name": "supervised"}], {"sedes": [1]}, "sedes"),
        ([{"name": "supervised", "seeds": ["x"]}], {}, "x"),
        ([{"name": "a/b"}], {}, "names a directory"),
        ([{"name": "a"}, {"name": "a"}], {}, "given twice"),
        ([{"name": "a", "configs": ["gone.yaml"]}], {}, r"gone\.yaml does not exist"),
        ([{"name": "a"}], {"baseline": "b"}, "baseline 'b' is none of the runs a"),
        ([{"name": "a", "baseline": "b"}], {}, "baseline 'b' is none of the runs a"),
    ],
)
def test_a_wrong_matrix_file_is_named_with_its_fault(write, runs, more, message):
    with pytest.raises(InputError, match=rf"(?s)matrix\.yaml: .*{message}"):
        read_matrix(write(runs, **more))


def test_a_matrix_file_that_is_not_there_or_no_mapping_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml"):
        read_matrix(tmp_path / "gone.yaml")
    (tmp_path / "list.yaml").write_text("[]")
    with pytest.raises(InputError, match=r"list\.yaml: expected the keys results, root and runs"):
        read_matrix(tmp_path / "list.yaml")


def test_results_and_root_can_be_put_elsewhere(tmp_path, write):
    matrix = read_matrix(
        write([{"name": "supervised"}]), results=tmp_path / "r.csv", root=tmp_path / "elsewhere"
    )
    assert matrix.results == tmp_path / "r.csv"
    assert matrix.cells()[0].directory == tmp_path / "elsewhere" / "supervised-seed0"


EXPERIMENTS = Path(__file__).parents[2] / "experiments"
MATRICES = [file.name for file in sorted(EXPERIMENTS.glob("*.yaml")) if "\nruns:" in file.read_text()]


def options_of(*classes):
    return {name for of in classes for name in inspect.signature(of.__init__).parameters}


def test_there_are_matrices_in_the_repository():
    assert {"demo.yaml", "synthetic.yaml", "ablations.yaml", "fer2013.yaml"} <= set(MATRICES)


@pytest.mark.parametrize("file", MATRICES)
def test_the_matrices_of_the_repository_name_options_that_exist(file, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)
    for cell in read_matrix(EXPERIMENTS / file).cells():
        content = merge(cell.config)
        method = getattr(fer_lightning.methods, content["model"].pop("class_path").rpartition(".")[2])
        known = options_of(*(each for each in method.__mro__ if issubclass(each, SemiSupervised)))
        assert content["model"].keys() <= known, str(cell)
        assert content["data"].keys() <= options_of(SemiSupervisedFaces), str(cell)
        if method is fer_lightning.methods.SITFER:  # its default is what the machine has
            assert content["model"].get("text_anchor", "auto") != "auto", str(cell)


@pytest.mark.parametrize("file", MATRICES)
def test_runs_of_a_matrix_differ_in_more_than_their_name(file, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)
    versions = {cell.name: Version.of(cell.config) for cell in read_matrix(EXPERIMENTS / file).cells()}
    assert len(set(versions.values())) == len(versions)


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("methods/*.yaml")), ids=lambda file: file.stem)
def test_the_yaml_of_a_method_names_its_class_and_leaves_data_and_trainer_alone(file):
    content = yaml.safe_load(file.read_text())
    assert content.keys() == {"model"}
    assert content["model"].keys() == {"class_path"}
    assert content["model"]["class_path"].startswith("fer_lightning.methods.")
