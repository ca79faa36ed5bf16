"""A method for the driver of a matrix, which asks a class for no more than its revision."""


class LightMethod:
    revision = 1
