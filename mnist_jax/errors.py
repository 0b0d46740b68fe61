"""The one exception that is meant for the person at the terminal."""


class UserError(Exception):
    """A mistake that the user can mend; the program prints it on one line and exits with status 2.

    The message names the value, the rule it breaks and the remedy, in that order.
    """
