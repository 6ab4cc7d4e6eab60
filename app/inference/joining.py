"""The decision whether requests of several clients may share one run of a model, with its reason."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Joining:
    """Whether requests may share a run of a model.

    Args:
        max_rows: most rows of a run that joins requests; 0 if each request runs alone.
        reason: why, as a sentence without its full stop.
    """

    max_rows: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as the API names them."""
        return {"joined": self.max_rows > 0, "max_rows": self.max_rows, "reason": self.reason}


NOT_TRIED = Joining(0, "the model has not run yet")
