"""SSER: activation-matrix triplets and complementary-information pseudo-labels."""

from fer_lightning.methods.sser.method import SSER

__all__ = ["SSER"]
