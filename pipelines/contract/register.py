"""A registry made ready for everybody who sends: all events are in it, and it refuses what breaks them.

input:  the contract, and a registry that may be new, or hold earlier versions
does:   checks first that nothing breaks; then guards each event's subject and registers its schema
output: a version of each event's subject (Confluent's TopicRecordNameStrategy); nothing if anything breaks
"""

from pipelines.contract.check import Comparison, baseline_of_registry, compare
from pipelines.contract.events import Contract
from pipelines.contract.evolution import Mode
from pipelines.contract.registry import SchemaRegistry


def register_contract(contract: Contract, registry: SchemaRegistry) -> Comparison:
    """Register all events, unless one of them breaks; how they differ from what was there.

    Raises `IncompatibleSchema` if the registry refuses one nevertheless, and what `SchemaRegistry` raises.
    """
    comparison = compare(contract, baseline_of_registry(registry), Mode.REEL)
    if not comparison.breaks:
        for event in contract.events:
            registry.guard(event.subject)
            registry.register(event.subject, event.avro_json)
    return comparison
