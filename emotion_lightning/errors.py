"""The one error that a user can mend."""


class UserError(Exception):
    """A setting, a file or an access right is wrong.

    The message names what is wrong, where, and what would mend it. A command that meets it prints the message alone
    and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it has no words."""
    return next(iter(str(error).splitlines()), type(error).__name__)
