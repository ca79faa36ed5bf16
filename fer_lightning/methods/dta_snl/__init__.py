"""DTA+SNL: dynamic thresholds, selective negative learning and local attention."""

from fer_lightning.methods.dta_snl.method import DTASNL

__all__ = ["DTASNL"]
