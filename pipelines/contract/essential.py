"""Which events are kept whatever a person consented to: the list in `configs/essential_events.yaml`."""

from pathlib import Path

import yaml

from pipelines.contract.events import Contract
from pipelines.errors import ContractError
from pipelines.settings_section import PROJECT_ROOT

LIST = PROJECT_ROOT / "configs" / "essential_events.yaml"


def essential_events(contract: Contract, path: Path = LIST) -> frozenset[str]:
    """The names on the list. Raises `ContractError` where list and schemas disagree: both are promises to viewers."""
    listed = frozenset(yaml.safe_load(path.read_text())["essential_events"])
    declared = frozenset(event.name for event in contract.events if event.consent_category == "essential")
    others = {event.name for event in contract.events if event.consent_category != "essential"}
    if undecided := sorted(declared & others):
        raise ContractError(
            f"{', '.join(undecided)} is essential on one topic and not on another, but {path} goes by name; "
            "give both schemas one consent_category, or one of them another event_name"
        )
    if only_listed := sorted(listed - declared):
        raise ContractError(
            f"{path} lists {', '.join(only_listed)}, which no schema declares with consent_category essential; "
            "mend the list or the schema"
        )
    if only_declared := sorted(declared - listed):
        raise ContractError(
            f"the schemas declare {', '.join(only_declared)} essential, but {path} does not list them; "
            "mend the list or the schema"
        )
    return listed
