"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """A mistake in what the user asked for: one line that names the key, what is wrong and what would be right."""


class RunFailed(RuntimeError):
    """The run cannot go on; what it has finished stays in its folder."""
