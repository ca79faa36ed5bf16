"""SIT-FER: semantic, instance and text level pseudo-labels."""

from fer_lightning.methods.sit_fer.method import SITFER

__all__ = ["SITFER"]
