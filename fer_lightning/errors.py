"""The one family of errors that are the user's to mend; the program shows their message alone."""


class InputError(ValueError):
    """Something given is wrong; the message names the file, row or parameter and says what to do.

    Args:
        message: names what is wrong; parameters by their Python name.
        option: the parameter on the command line, such as ``model.ema_decay``; the program prints it.
    """

    def __init__(self, message: str = "", option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class CheckpointError(InputError):
    """A checkpoint is not one of this package, or not for this model."""
