"""What can go wrong, and the HTTP status that says so.

KronError
├── StartupError         settings, folder, port or device: the process cannot serve (exit code 2)
├── WorkersDied          they die again and again (exit code 1)
├── ReportsError         reports cannot be read or kept; all else goes on (500)
├── ModelError           one model cannot be served; the others are
│   └── OutOfMemory      it wants more memory than there is
└── RequestError         one request cannot be answered
├── BadRequest       400
│   └── InputsRefused     a ModelError, too: the model itself refuses them
├── Unauthorized     401
├── Forbidden        403
├── NotFound         404
├── RequestTimeout   408
├── Conflict         409
├── TooLarge         413
├── UnsupportedEncoding 415
├── TooManyRequests  429
├── HungUp           499
├── ComparisonError  500
├── TrainingError    500
├── NotSupported     501
├── NotReady         503
├── Overloaded       503
└── TimedOut         504
"""


class KronError(Exception):
    """Base of everything this service refuses or cannot do."""

    exit_code = 2  # at the command line


class StartupError(KronError):
    """The process cannot start serving."""


class WorkersDied(KronError):  # noqa: N818
    """Worker processes die faster than it makes sense to replace them."""

    exit_code = 1


class ReportsError(KronError):
    """Reports cannot be read or kept."""


class ModelError(KronError):
    """A model cannot be served."""


class OutOfMemory(ModelError):  # noqa: N818
    """A run wants more memory than there is."""


class RequestError(KronError):
    """A request cannot be answered; `retry_after` is in seconds."""

    status = 500
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that go with the error."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class BadRequest(RequestError):  # noqa: N818 - named as HTTP names them
    """The request itself is wrong."""

    status = 400


class InputsRefused(BadRequest, ModelError):  # noqa: N818
    """The model refuses what fits its signature: an index that it has not, sizes that do not go together."""


class Unauthorized(RequestError):  # noqa: N818
    """No API key, or one that nobody has."""

    status = 401

    @property
    def headers(self) -> dict[str, str]:
        """HTTP wants to be told how to do better."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):  # noqa: N818
    """The API key does not allow this."""

    status = 403


class NotFound(RequestError):  # noqa: N818
    """No such model, sample or path."""

    status = 404


class UnknownModel(NotFound):
    """No model of that name is served."""


class RequestTimeout(RequestError):  # noqa: N818
    """The client did not send its body in time."""

    status = 408


class Conflict(RequestError):  # noqa: N818
    """Something else is running that excludes this."""

    status = 409
    retry_after = 10


class TooLarge(RequestError):  # noqa: N818
    """The body is longer than this service reads."""

    status = 413


class UnsupportedEncoding(RequestError):  # noqa: N818
    """The body is compressed in a way that this service does not read."""

    status = 415


class NotSupported(RequestError):  # noqa: N818
    """A part of the protocol that this service does not have."""

    status = 501


class NotReady(RequestError):  # noqa: N818
    """The model is there, but not loaded."""

    status = 503


class TooManyRequests(RequestError):  # noqa: N818
    """One client has more requests running than it may."""

    status = 429
    retry_after = 1


class ClientDisconnected(RequestError):  # noqa: N818
    """Nobody waits for the answer any more."""

    status = 499


class ComparisonError(RequestError):
    """A measurement failed."""

    exit_code = 1


class TrainingError(RequestError):
    """A training failed."""


class Overloaded(RequestError):  # noqa: N818
    """Too much is waiting, or the models are still loading."""

    status = 503
    retry_after = 1


class TimedOut(RequestError):  # noqa: N818
    """It took longer than it may."""

    status = 504
    exit_code = 1
