"""Every error fishserve raises on purpose. Each message says what was wrong, with the value, and what to do.

FishserveError
  x ConfigurationError   a setting
  x CheckpointError      a checkpoint
  x PrecisionError       a weight's precision
  x MissingExtra         a package that is not installed
  x RequestError         a request that cannot be served
    + VoiceNotFound
    + VoiceExists
    + DictionaryNotFound
    + DictionaryExists
    + AudioError         a clip
  x NotReady             the model is loading
    + VoicesUnavailable  the bucket of the voices does not answer
  x Overloaded           the queue is full
  x GenerationError      a request failed
  x EngineClosed         the engine ended
"""


class FishserveError(Exception):
    """Base of all errors a caller may want to catch."""


class ConfigurationError(FishserveError):
    """A setting is missing or has a value that cannot be used."""


class CheckpointError(FishserveError):
    """A checkpoint is missing, damaged, foreign, or does not fit together."""


class MissingExtra(FishserveError):
    """A package is not installed; the message names the extra that brings it and how to install it."""


class PrecisionError(FishserveError):
    """A weight does not have the precision the policy demands on this device."""


class RequestError(FishserveError):
    """The caller asked for something that cannot be done; nothing was started.

    `param` names the field at fault, where there is one.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class VoiceNotFound(RequestError):
    """This machine has no voice with that name."""


class VoiceExists(RequestError):
    """Another voice already has that name."""


class DictionaryNotFound(RequestError):
    """This machine has no pronunciation dictionary with that name, or not in that version."""


class DictionaryExists(RequestError):
    """Another pronunciation dictionary already has that name."""


class AudioError(RequestError):
    """A clip could not be read, or is too short, too long or empty."""


class GenerationError(FishserveError):
    """One request failed while it was being spoken; other requests are unaffected."""


class Overloaded(FishserveError):
    """The queue is full; nothing was started. `retry_after` is the number of seconds after which to retry."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(FishserveError):
    """The model is still loading, or could not be loaded; nothing was started."""


class VoicesUnavailable(NotReady):
    """The bucket of the voices does not answer, or refuses; nothing was started. It may have taken a change whose answer was lost."""


class EngineClosed(FishserveError):
    """The engine was closed, or its thread died, before the request finished."""


def shown(value: float) -> str:
    """A number as text for an error message; abbreviated when a client sends thousands of digits."""
    return "a number beyond 1e30" if abs(value) > 1e30 else str(value)
