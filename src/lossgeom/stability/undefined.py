"""The error of a quantity that a step has not."""


class UndefinedError(ArithmeticError):
    """A quantity is not defined at this step; the text says why, and what is measured instead.

    It is no fault of the model, the loss or the data: at other steps there may be a value.
    """
