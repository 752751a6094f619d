"""Errors in reports about episodes."""

from serving.protocols.errors import RequestPartError


class FeedbackInvalid(RequestPartError):
    """A report about an episode has an invalid value."""

    code = "feedback_invalid"
