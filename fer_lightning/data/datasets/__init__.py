"""Data sets in their official layouts on disk: one file each, each an index of faces."""

from fer_lightning.data.datasets.afew_va import AFEWVA
from fer_lightning.data.datasets.aff_wild2 import AffWild2
from fer_lightning.data.datasets.affectnet import AffectNet
from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces
from fer_lightning.data.datasets.ck_plus import CKPlus
from fer_lightning.data.datasets.fer2013 import FER2013
from fer_lightning.data.datasets.ferplus import FERPlus
from fer_lightning.data.datasets.folder import FaceFolder
from fer_lightning.data.datasets.raf_db import RAFDB
from fer_lightning.data.datasets.sfew import SFEW
from fer_lightning.data.datasets.table import FaceTable

__all__ = [
    "AFEWVA",
    "FER2013",
    "RAFDB",
    "SFEW",
    "AffWild2",
    "AffectNet",
    "CKPlus",
    "DataError",
    "FERPlus",
    "FaceDataset",
    "FaceFolder",
    "FaceTable",
    "Faces",
]
