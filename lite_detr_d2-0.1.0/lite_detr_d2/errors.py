"""The error of everything that a user can mend."""


class InputError(ValueError):
    """A config, dataset, image or checkpoint that cannot be used; the message names it and says what to do.

    Entry points print the message alone: whoever raises this has said all there is to say.
    """
