"""The terms that a training step minimizes."""

from torch import Tensor

from fer_lightning.task import Output


class Losses(dict[str, Tensor]):
    """Weighted terms by name, whose sum is minimized, and the student's outputs they came from.

    ``Losses((x, s), supervised=..., unlabeled=...)``. The outputs go on to ``update_state``, for memories and
    thresholds that follow what the student has just computed.

    Args:
        outputs: of the student.
        terms: scalars by name; logged as ``train/<name>``.
    """

    def __init__(self, outputs: tuple[Output, ...] = (), /, **terms: Tensor) -> None:
        super().__init__(terms)
        self.outputs = outputs
