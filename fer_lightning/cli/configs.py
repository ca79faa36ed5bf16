"""The configuration files of this package: trainer, data sets, methods, presets and prompts."""

from pathlib import Path

from fer_lightning.errors import InputError

FOLDER = Path(__file__).parents[1] / "configs"
"""Where they are installed; in a checkout, links to those in ``experiments``."""


def write_configs(folder: Path) -> int:
    """Write the configuration files of this package into a folder, for ``--config`` and to be edited.

    Args:
        folder: made if need be. A file in it that differs from the one to be written is not overwritten.

    Returns:
        Exit status, 0.

    Raises:
        InputError: if a file is in the way; then nothing is written.
    """
    contents = {folder / name: (FOLDER / name).read_bytes() for name in config_files()}
    changed = [
        str(file) for file, content in contents.items() if file.exists() and file.read_bytes() != content
    ]
    if changed:
        raise InputError(f"{', '.join(changed)} would be overwritten; choose another folder")
    for file, content in contents.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    print(
        f"Wrote {len(contents)} files into {folder}. For example:\n"
        f"  fer-lightning fit --config {folder / 'trainer.yaml'} --config {folder / 'data/synthetic.yaml'} "
        f"--config {folder / 'methods/fixmatch.yaml'}"
    )
    return 0


def config_files() -> list[str]:
    """Return the names of the configuration files relative to ``FOLDER``, sorted."""
    # Not rglob, which does not follow the links of a checkout.
    found = [*FOLDER.glob("*.yaml"), *FOLDER.glob("*/*.yaml")]
    return sorted(file.relative_to(FOLDER).as_posix() for file in found)
