"""The one exception that this package raises for a user's mistake."""

from flsplit.errors import UserError


class DataError(UserError):
    """A mistake in the configuration or the data: one line that names the key and what would be right."""
