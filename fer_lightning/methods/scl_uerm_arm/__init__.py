"""SCL+UERM+ARM: supervised contrast, uncertainty-guided relabeling and amending."""

from fer_lightning.methods.scl_uerm_arm.method import SCLUERMARM

__all__ = ["SCLUERMARM"]
