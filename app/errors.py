"""Errors of the service, each with its HTTP status or its exit code.

KronError                     exit code 2, if it ends a command
├── StartupError              a wrong option, folder, port or device: the service cannot start
├── WorkerCrashLoop           workers crash again and again (exit code 1)
├── ReportsError              reports cannot be read or written; everything else still works (500)
├── ModelError                one model cannot be served; the others can
│   └── OutOfMemory           a run needs more memory than is available
└── RequestError              one request cannot be answered
    ├── BadRequest            400
    │   └── InputsRefused     also a ModelError: the model refuses the inputs
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    │   └── UnknownModel
    ├── RequestTimeout        408
    ├── Conflict              409
    ├── TooLarge              413
    ├── UnsupportedEncoding   415
    ├── TooManyRequests       429
    ├── ClientDisconnected    499
    ├── ComparisonError       500 (exit code 1)
    ├── TrainingError         500
    ├── NotSupported          501
    ├── NotReady              503
    ├── Overloaded            503
    ├── TimedOut              504 (exit code 1)
    └── HttpVersionNotSupported 505

The names of errors that a request can cause are labels of the metric `kron_failures_total`.
"""


class KronError(Exception):
    """Base class of the service's errors. The message says what was got, what was expected, and the cure."""

    exit_code = 2  # of a command that the error ends


class StartupError(KronError):
    """The process cannot start serving."""


class WorkerCrashLoop(KronError):  # noqa: N818
    """Worker processes crash so often that starting new ones makes no sense."""

    exit_code = 1


class ReportsError(KronError):
    """Reports cannot be read or written."""


class ModelError(KronError):
    """A model cannot be served."""


class OutOfMemory(ModelError):  # noqa: N818
    """A run needs more memory than is available."""


class RequestError(KronError):
    """A request cannot be answered.

    Attributes:
        status: of the HTTP response.
        retry_after: seconds after which the client may try again; None if trying again does not help.
    """

    status = 500
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of the error's response."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class BadRequest(RequestError):  # noqa: N818 - these classes are named as HTTP names its statuses
    """The request is malformed, or one of its values is not allowed."""

    status = 400


class InputsRefused(BadRequest, ModelError):  # noqa: N818
    """The model refuses inputs that fit its signature, such as an index out of range."""


class Unauthorized(RequestError):  # noqa: N818
    """The API key is missing or unknown."""

    status = 401

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of the response: the authentication scheme, which HTTP requires with this status."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):  # noqa: N818
    """The API key does not allow this request, or without keys, its origin or host name is not allowed."""

    status = 403


class NotFound(RequestError):  # noqa: N818
    """There is no such model, sample or path."""

    status = 404


class UnknownModel(NotFound):
    """No model of this name is served."""


class RequestTimeout(RequestError):  # noqa: N818
    """The client did not send its body in time."""

    status = 408


class Conflict(RequestError):  # noqa: N818
    """The request conflicts with a job that is running."""

    status = 409
    retry_after = 10


class TooLarge(RequestError):  # noqa: N818
    """The body is larger than this service accepts."""

    status = 413


class UnsupportedEncoding(RequestError):  # noqa: N818
    """The body is compressed in a format that this service cannot decode."""

    status = 415


class NotSupported(RequestError):  # noqa: N818
    """The request needs a part of the protocol that this service does not implement."""

    status = 501


class NotReady(RequestError):  # noqa: N818
    """The model is in the repository but not loaded."""

    status = 503


class TooManyRequests(RequestError):  # noqa: N818
    """The client has reached its limit of running requests."""

    status = 429
    retry_after = 1


class ClientDisconnected(RequestError):  # noqa: N818
    """The client closed the connection before the answer was ready."""

    status = 499


class ComparisonError(RequestError):
    """A measurement failed."""

    exit_code = 1


class TrainingError(RequestError):
    """A training failed."""


class Overloaded(RequestError):  # noqa: N818
    """Too many requests are waiting, or the models are still loading."""

    status = 503
    retry_after = 1


class HttpVersionNotSupported(RequestError):  # noqa: N818
    """The request line names another version of HTTP."""

    status = 505


class TimedOut(RequestError):  # noqa: N818
    """A request or a measurement exceeded its time limit."""

    status = 504
    exit_code = 1
