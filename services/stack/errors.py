"""What can go wrong with the stack; the command prints these without a traceback."""


class StackError(Exception):
    """Says in one sentence what stopped the stack, and where to look."""


class StartError(StackError):
    """Says that a part did not become healthy, with the end of its log."""


class ProgramMissingError(StackError):
    """Says that a program of the stack is not installed."""


class HomeInUseError(StackError):
    """Says that another `wayfare up` already runs on this home."""


class NotRunningError(StackError):
    """Says that no stack runs on this home."""
