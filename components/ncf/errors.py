"""The one exception that a user is meant to read."""


class InputError(Exception):
    """A mistake that the caller can mend: its text is one sentence that says what, where and what to do.

    Command lines print the text without a traceback and exit with status 1. Anything else that escapes a step
    is a defect of this project and keeps its traceback.
    """
