"""One file per paper; each method is a LightningModule that says what it believes and what it learns."""

from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.methods.supervised import Supervised

__all__ = ["FixMatch", "SemiSupervised", "Supervised"]
