"""What the fields of an export mean: the contract's own words for events, and Reel's for what it adds."""

from functools import cache

from features.groups import GROUPS
from pipelines.contract.events import load_contract
from pipelines.settings_section import PROJECT_ROOT

_ADDED = {
    "cluster_id": "Kafka cluster that the event came from.",
    "topic": "Kafka topic that the event came from.",
    "partition": "Partition of the topic.",
    "offset": "Place in the partition.",
    "ingested_at": "When Reel received it.",
    "reason": "Why the message was set aside.",
    "message": "What the message says.",
    "trace_id": "Request that the event belongs to.",
    "headers": "What came with the message beside its body.",
    "geo_country": "Country that the address was in.",
    "geo_region": "Region that the address was in.",
    "geo_city": "City that the address was in.",
    "time_zone": "Time zone that the address was in.",
    "isp": "Internet provider of the address.",
    "device_class": "Kind of device, told by its agent.",
    "viewer_token": "What aggregates count viewers by: the profile's pseudonym, of a child one that changes daily.",
    "is_kids": "Whether the profile is a child's.",
    "profile_described": "Whether the profile had been described when the event came in.",
    "maturity_rating": "Highest rating that the profile may watch.",
    "allows_analytics": "Whether analytics were allowed.",
    "allows_personalization": "Whether personalization was allowed.",
    "allows_ad_targeting": "Whether targeted advertising was allowed.",
    "subscription_tier": "What the account subscribed to at the time.",
    "valid_until": "Until when the subscription holds.",
    "change_reason": "Why the subscription changed.",
    "content_title": "Name of the title.",
    "content_genres": "Genres of the title.",
    "content_series_id": "Series of the title.",
    "content_episode_number": "Place of the title in its series.",
    "content_runtime_ms": "Length of the title, milliseconds.",
    "content_maturity_rating": "Rating of the title.",
    "channel_name": "Name of the channel.",
    "is_orphan": "Whether the title was not in the catalogue.",
    "client_timestamp_reliable": "Whether the device's clock was right.",
    "chain": "Number by which Reel keeps parts of a playback together.",
    "chain_first_at": "First event of these parts.",
    "chain_last_at": "Last event of these parts.",
    "first_event_at": "First event of the playback.",
    "started_at": "When it started to play.",
    "last_event_at": "Last event of the playback.",
    "is_ended": "Whether its end is known.",
    "event_count": "Events of the playback.",
    "watch_ms": "Time watched, milliseconds.",
    "stall_count": "How often it stalled.",
    "stall_ms": "How long it stalled, milliseconds.",
    "mean_bitrate_kbps": "Mean bitrate, kilobits a second.",
    "bitrate_switch_count": "How often the bitrate changed.",
    "error_count": "Errors of the playback.",
    "as_of": "Instant as of which the values are.",
    "tile_ms": "Length of the stretch of time that is summed up here, milliseconds.",
    "tile_start": "Start of that stretch of time.",
    "last_event_timestamp": "Last event that contributed.",
    "created_timestamp": "When the values were published.",
    "packed": "Values written by an older declaration, as they are stored.",
    "row_id": "Number of the row.",
    "history": "Titles watched before the instant of the row.",
    "label": "Titles watched after it.",
    "label_timestamps": "When these were watched.",
    "at": "When it was answered.",
    "answer_id": "Number of the answer.",
    "model": "Model that answered.",
    "model_version": "Version of the model.",
    "arm": "Which of two versions that are compared.",
    "experiment": "Comparison of versions that the person is part of.",
    "is_shadow": "Whether the answer was only kept, and shown to nobody.",
    "prediction": "What the model said (JSON).",
    "propensity": "Probability that the choice had.",
    "group": "Group of features that was asked for.",
    "version": "Version of the group's definition.",
    "entity": "What the features are of.",
    "key": "Which of them.",
    "values": "What was answered (JSON).",
    "age_ms": "Time from the last event that counts to the answer, milliseconds.",
    "boundary": "Hour or day up to which the values are.",
    "stream": "How far Reel had read events when it answered (JSON).",
}
_STATE = "Sums of a stretch of time, from which the values are worked out."
_ELSE = "A value of the training set."


def meaning(place: str, name: str) -> str:
    """What a field of a place's rows means, in a sentence."""
    return _known().get(name) or (_STATE if place.startswith("features.") else _ELSE)


@cache
def _known() -> dict[str, str]:
    contract = load_contract(PROJECT_ROOT / "configs" / "schemas")
    of_events = {column.name: column.doc for event in contract.events for column in event.columns}
    of_features = {one.name: f"{one.description} ({one.unit})" for group in GROUPS for one in group.features}
    ages = {group.age_column: "Age of the values, milliseconds." for group in GROUPS}
    return {**of_events, **of_features, **ages, **_ADDED}
