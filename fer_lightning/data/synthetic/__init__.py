"""Procedural faces that need no download, for the demo and the tests."""

from fer_lightning.data.synthetic.dataset import SyntheticFaces

__all__ = ["SyntheticFaces"]
