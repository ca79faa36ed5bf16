"""The one family of errors that are the user's to mend; the program shows their message alone."""


class InputError(ValueError):
    """Something given is wrong; the message names the file, row or option and says what to do."""


class CheckpointError(InputError):
    """A checkpoint is not one of this package, or not for this model."""
