"""What can go wrong in ways that a user can mend. The command line prints these in one line."""

from __future__ import annotations

__all__ = ["CheckpointError", "DataError", "ExportError", "KronmodelError", "LoadError", "TrainingError"]


class KronmodelError(Exception):
    """Base of the errors below."""


class DataError(KronmodelError):
    """A data set is missing, damaged or of another form than expected."""


class TrainingError(KronmodelError):
    """Training could not go on, for example because the loss is no longer finite."""


class CheckpointError(KronmodelError):
    """A checkpoint can't be written, is damaged, or belongs to another training."""


class LoadError(KronmodelError):
    """A saved network is missing, damaged, or of another format."""


class ExportError(KronmodelError):
    """An exported model failed a check, or could not be written; nothing was published."""
