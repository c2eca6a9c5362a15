"""A new salt: half of a small platform's events come in before it, half after, and people stay who they are.

Also that no table, file or log of that run holds anybody's plain id, beside a hash or elsewhere.
"""

import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from features.consent import ConsentHistory
from features.decision import Registries, decide
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import unpack_values
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from serving.consent_gate import ConsentGate, Person
from serving.online_store import open_online_store
from tests.platform import DAY, HOUR, MINUTE, T0, Platform, consent, described, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
OLD, NEW = "the salt of last year", "the salt of this year"
ROTATION = T0 + 10 * DAY
STAYS, LEAVES, REFUSED, CHILD, GREW = PEOPLE = [
    f"account-{name}-4711" for name in ("stays", "leaves", "refused", "child", "grew")
]
PERSONAL = frozenset({Purpose.PERSONALIZATION})


def hashed(plain: str, salt: str) -> str:
    """By spec 8.3, without Reel."""
    return hashlib.sha256((plain + salt).encode()).hexdigest()


class Rotated(Platform):
    """The platform, what its run logged, and the folder where Ray logs."""

    said: io.StringIO
    ray_folder: Path

    def salts(self, *salts: str) -> None:
        """Oldest first, as an operator writes them."""
        (self.folder / "salt").write_text("\n".join(salts))

    def bring_in(self, *events: dict[str, Any]) -> None:
        self.send(*events)
        ingest(self.settings)
        clean(self.settings)


def seen(who: str, content_id: str, at_ms: int, **columns: Any) -> list[dict[str, Any]]:
    """A playback whose own id does not tell whose it is."""
    return watched(who, content_id, at_ms, playback_id=f"pb-{PEOPLE.index(who)}-{content_id}", **columns)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotated]:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REEL_SALT", raising=False)
        platform = Rotated(tmp_path_factory.mktemp("rotated"))
        platform.said, platform.ray_folder = said, Path(ray._private.worker.global_worker.node.get_session_dir_path())
        platform.salts(OLD)
        platform.bring_in(
            *(title(f"vod-{n}", "drama") for n in range(6)),
            *(described(one) for one in (STAYS, LEAVES, REFUSED, GREW)),
            described(CHILD, is_kids=True),
            *(consent(one, T0 - DAY) for one in (STAYS, LEAVES, GREW)),
            consent(REFUSED, T0 - DAY, allows_personalization=False),
            *(one for who in PEOPLE for n in range(3) for one in seen(who, f"vod-{n}", T0 + n * DAY)),
            *seen(STAYS, "vod-5", ROTATION + 5 * MINUTE)[:1],  # it starts before the new salt, and stops after it
        )
        platform.salts(OLD, NEW)
        unsaid = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), None)
        platform.bring_in(
            *seen(STAYS, "vod-5", ROTATION + 5 * MINUTE)[1:],
            *(one for who in (STAYS, LEAVES, CHILD) for one in seen(who, "vod-4", ROTATION + DAY)),
            *seen(REFUSED, "vod-4", ROTATION + DAY, market="US", **unsaid),
            described(REFUSED, ROTATION + HOUR),
            described(GREW, ROTATION + 2 * DAY, is_kids=True),
            consent(LEAVES, ROTATION + 2 * DAY, allows_personalization=False),
        )
        platform.built = build_features(platform.settings)
        yield platform
    logging.getLogger().removeHandler(handler)


def test_events_are_hashed_with_the_salt_of_their_day_and_never_with_another(platform):
    for row in platform.rows("silver.playback", ["event_timestamp", "user_id", "profile_id"]):
        is_later = row["event_timestamp"].timestamp() * 1000 >= ROTATION
        salt = NEW if is_later else OLD
        assert row["user_id"] in {None, *(hashed(one, salt) for one in PEOPLE)}
        assert row["profile_id"] in {None, *(hashed(f"{one}-p", salt) for one in PEOPLE)}


def test_what_is_said_after_the_new_salt_is_known_under_both(platform):
    refusals = {row["user_id"] for row in platform.rows("privacy.consents") if not row["allows_personalization"]}
    assert refusals == {hashed(REFUSED, OLD), hashed(LEAVES, OLD), hashed(LEAVES, NEW)}
    children = {row["profile_id"] for row in platform.rows("privacy.profiles") if row["is_kids"]}
    assert children == {hashed(f"{CHILD}-p", OLD), hashed(f"{GREW}-p", OLD), hashed(f"{GREW}-p", NEW)}


def test_a_childs_profile_described_before_is_a_childs_after(platform):
    at = [row for row in platform.rows("bronze.events") if row["is_kids"] and row["event_name"] == "playback.stopped"]
    assert len([row for row in at if row["event_timestamp"].timestamp() * 1000 >= ROTATION]) == 1
    assert {row[name] for row in at for name in ("user_id", "profile_id", "session_id", "device_id")} == {None}


def test_of_whom_rows_may_be_used_is_the_same_on_both_sides(platform):
    """Withdrawn after, refused before, found to be a child's after: no row of either half."""
    lakehouse = Lakehouse.open(platform.settings)
    rows = lakehouse.existing("silver.playback").scan().to_arrow()
    consents = ConsentHistory.of(read_all(lakehouse.existing("privacy.consents"), tables.CONSENTS))
    profiles = ProfileRegistry.of(read_all(lakehouse.existing("privacy.profiles"), tables.PROFILES))
    decision = decide(rows, Purpose.PERSONALIZATION, Registries(consents, profiles), ROTATION + 4 * DAY)
    allowed = rows.filter(decision.allowed.tolist())
    assert set(allowed["user_id"].to_pylist()) == {hashed(STAYS, OLD), hashed(STAYS, NEW)}
    assert allowed.num_rows == 2 * 5  # three titles, one across, one after


def test_features_go_on_under_the_new_key_and_the_old_one_keeps_what_it_had(platform):
    """A viewer's history is cut in two. Whoever asks is given the new half; it is whole once the windows are over."""
    people, group = Pseudonymizer((OLD, NEW)), USER_VIEWING_HISTORY
    with open_online_store(platform.settings.online_store_url, readonly=True) as store:
        stored = group.stored_as("user_id")
        assert set(store.keys(stored)) == {hashed(STAYS, OLD), hashed(STAYS, NEW)}
        kept = store.get_many(stored, people.candidates(STAYS))
        (as_of,) = store.get_many("meta", ["watermark_ms"])
        newer, older = unpack_values(group, kept, int(as_of))["recent_titles"].to_pylist()
    assert sorted(newer) == ["vod-4", "vod-5"]
    assert sorted(older) == ["vod-0", "vod-1", "vod-2"]


def test_whoever_is_answered_is_asked_about_under_both(platform):
    gate = ConsentGate(Pseudonymizer((OLD, NEW)))
    asked = [Person(profile_id=f"{one}-p") for one in PEOPLE] + [Person(user_id=one) for one in PEOPLE[:3]]
    with open_online_store(platform.settings.online_store_url, readonly=True) as store:
        reasons = gate.refusals(store, asked, PERSONAL, "US")
    assert reasons == [
        None, "consent_refused", "consent_refused", "kids_profile", "kids_profile",
        None, "consent_refused", "consent_refused",
    ]  # fmt: skip


def test_a_playback_across_the_new_salt_is_two(platform):
    across = [row for row in platform.rows("silver.playback_sessions") if row["content_id"] == "vod-5"]
    assert {(row["user_id"], row["is_ended"]) for row in across} == {
        (hashed(STAYS, OLD), False),
        (hashed(STAYS, NEW), True),
    }


def test_no_table_file_or_log_holds_a_plain_id_or_a_salt(platform):
    secret = [*PEOPLE, OLD, NEW]  # of profiles, sessions and devices the ids begin with the account's
    lakehouse = Lakehouse.open(platform.settings)
    rows = 0
    for name in lakehouse.names():
        found = lakehouse.existing(name).scan().to_arrow().to_pylist()
        rows += len(found)
        text = repr(found)
        assert [one for one in secret if one in text] == [], name
    assert rows > 100
    kafka, given = platform.folder / "log.db", {platform.folder / "salt"}
    files = [one for folder in (platform.folder, platform.ray_folder / "logs") for one in folder.rglob("*")]
    ours = [one for one in files if one.is_file() and one not in given and not one.name.startswith(kafka.name)]
    assert any(STAYS.encode() in one.read_bytes() for one in files if one.name.startswith(kafka.name))
    assert len(ours) > 50
    for file in ours:
        content = file.read_bytes()
        assert [one for one in secret if one.encode() in content] == [], file
    assert [one for one in secret if one in platform.said.getvalue()] == []
