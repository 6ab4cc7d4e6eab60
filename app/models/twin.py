"""The choice of the default models, for requests that name none."""

import logging
from collections.abc import Sequence

from app.models.scan import Artifact

log = logging.getLogger(__name__)


def default_names(artifacts: Sequence[Artifact], twin: str | None) -> list[str]:
    """The names of the default twin's Kronecker and dense model; without a twin, the name of the first model.

    Args:
        artifacts: one version of each model.
        twin: name of the preferred twin; else it is `mnist`, else the first by name with both models.
    """
    twins: dict[str, dict[str, str]] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.name):
        card = artifact.card
        if card is not None and card.twin and card.role:
            twins.setdefault(card.twin, {}).setdefault(card.role, artifact.name)
    complete = {name: members for name, members in twins.items() if len(members) == 2}
    for name in [twin, "mnist", *sorted(complete)]:
        if name in complete:
            if twin is not None and name != twin:
                log.warning("twin %s: got no complete pair of models; the default is %s", twin, name)
            return [complete[name]["kronecker"], complete[name]["dense"]]
    return sorted(artifact.name for artifact in artifacts)[:1]
