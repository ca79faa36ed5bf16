"""One file or folder per paper; each method is a LightningModule with its own pseudo-labels and losses."""

from fer_lightning.methods.ada_cm import AdaCM
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.comatch import CoMatch
from fer_lightning.methods.dta_snl import DTASNL
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.methods.flexmatch import FlexMatch
from fer_lightning.methods.freematch import FreeMatch
from fer_lightning.methods.mean_teacher import MeanTeacher
from fer_lightning.methods.mixmatch import MixMatch
from fer_lightning.methods.pseudo_label import PseudoLabel
from fer_lightning.methods.scl_uerm_arm import SCLUERMARM
from fer_lightning.methods.simmatch import SimMatch
from fer_lightning.methods.sit_fer import SITFER
from fer_lightning.methods.softmatch import SoftMatch
from fer_lightning.methods.sser import SSER
from fer_lightning.methods.supervised import Supervised
from fer_lightning.methods.uda import UDA

__all__ = [
    "DTASNL",
    "SCLUERMARM",
    "SITFER",
    "SSER",
    "UDA",
    "AdaCM",
    "CoMatch",
    "FixMatch",
    "FlexMatch",
    "FreeMatch",
    "MeanTeacher",
    "MixMatch",
    "PseudoLabel",
    "SemiSupervised",
    "SimMatch",
    "SoftMatch",
    "Supervised",
]
