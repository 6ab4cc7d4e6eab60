"""Which models answer where a request names none."""

import logging
from collections.abc import Sequence

from app.models.scan import Artifact

log = logging.getLogger(__name__)


def default_names(artifacts: Sequence[Artifact], twin: str | None) -> list[str]:
    """Both members of the default twin, Kronecker first; without any twin, the first model.

    The twin is the one asked for, else `mnist`, else the first by name that has both members.
    """
    twins: dict[str, dict[str, str]] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.name):
        card = artifact.card
        if card is not None and card.twin and card.role:
            twins.setdefault(card.twin, {}).setdefault(card.role, artifact.name)
    whole = {name: members for name, members in twins.items() if len(members) == 2}
    for name in [twin, "mnist", *sorted(whole)]:
        if name in whole:
            if twin is not None and name != twin:
                log.warning("twin %s is not there with both members; %s answers by default", twin, name)
            return [whole[name]["kronecker"], whole[name]["dense"]]
    return sorted(artifact.name for artifact in artifacts)[:1]
