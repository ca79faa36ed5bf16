"""Wrong labels on purpose, to measure methods that are made to find them."""

from hashlib import sha256

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import Texts


def mislabel(
    emotion: npt.NDArray[np.float32], names: Texts, share: float, seed: int
) -> npt.NDArray[np.float32]:
    """Replace the emotion of some faces by another one, drawn uniformly: symmetric label noise.

    Each face is mislabeled with probability ``share``, as in the noise experiments of SCN (Wang et al., CVPR
    2020, https://arxiv.org/abs/2002.10392). Whether, and as what, depends on the seed and the name of the
    face alone: on no order, no other face and no library version. The faces mislabeled at a smaller share are
    among those of a larger one.

    Args:
        emotion: (N, C) probabilities; left as it is. A face of unknown emotion (NaN) stays unknown.
        names: (N,) of the faces.
        share: probability, in [0, 1].
        seed: another seed mislabels other faces.

    Returns:
        (N, C); the rows of mislabeled faces are one-hot, the others as given.
    """
    noisy = emotion.copy()
    classes = emotion.shape[1]
    for row in np.flatnonzero(~np.isnan(emotion).any(1)) if share and classes > 1 else ():
        # Not the digest that chooses the labeled faces: theirs are small.
        key = f"label noise/{seed}/{names[row]}".encode(errors="surrogateescape")
        whether, which = np.frombuffer(sha256(key).digest()[:16], ">u8").tolist()
        if whether < share * 2**64:
            other = (emotion[row].argmax() + 1 + which % (classes - 1)) % classes
            noisy[row] = np.eye(classes, dtype=np.float32)[other]
    return noisy
