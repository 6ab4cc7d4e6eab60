"""The choice of the default models, for requests that name none."""

import logging
from collections.abc import Mapping, Sequence

from app.models.scan import Artifact

log = logging.getLogger(__name__)


def default_names(artifacts: Sequence[Artifact], twin: str | None) -> list[str]:
    """The names of the default twin's smaller and larger model; without a twin, the name of the first model.

    A twin is a Kronecker network and a dense one, or a compressed model and its original.

    Args:
        artifacts: one version of each model.
        twin: name of the preferred twin; else it is `mnist`, else the first by name with both models.
    """
    twins: dict[str, dict[str, str]] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.name):
        card = artifact.card
        if card is not None and card.twin and card.role:
            twins.setdefault(card.twin, {}).setdefault(card.role, artifact.name)
    pairs = {name: _pair(members) for name, members in twins.items()}
    complete = {name: pair for name, pair in pairs.items() if pair}
    for name in [twin, "mnist", *sorted(complete)]:
        if name in complete:
            if twin is not None and name != twin:
                log.warning("twin %s: got no complete pair of models; the default is %s", twin, name)
            return complete[name]
    return sorted(artifact.name for artifact in artifacts)[:1]


def _pair(members: Mapping[str, str]) -> list[str]:
    """The smaller and the larger of a twin's models, by their roles; empty if one is missing."""
    small = members.get("kronecker") or members.get("compressed")
    large = members.get("dense") or members.get("original")
    return [small, large] if small and large else []
