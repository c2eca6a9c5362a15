"""A small platform with its features built, which tests of the join and of Feast read and never change."""

import random
from pathlib import Path

from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from tests.platform import DAY, T0, Platform, consent, described, title, watched

VIEWERS = [f"viewer-{n}" for n in range(6)]
KID, REFUSER, LEAVER = "kid", "refuser", "leaver"


def built(folder: Path) -> Platform:
    """Six viewers, a child, one who refused and one who withdrew after the build. Needs Ray and a salt."""
    platform = Platform(folder)
    chance = random.Random(11)
    events = [title(f"vod-{n}", chance.choice(["drama", "news", "comedy"])) for n in range(8)]
    events += [described(person) for person in [*VIEWERS, REFUSER, LEAVER]] + [described(KID, is_kids=True)]
    for person in [*VIEWERS, KID, REFUSER, LEAVER]:
        at = T0
        for content in chance.sample(range(8), 6):
            at += chance.randrange(1, 2 * DAY)
            flags = {"consent_personalization": False} if person == REFUSER else {}
            events += watched(person, f"vod-{content}", at, chance.choice([10.0, 60.0, 95.0]), **flags)
    platform.send(*events)
    ingest(platform.settings)
    clean(platform.settings)
    build_features(platform.settings)
    platform.silver = platform.rows("silver.playback")
    platform.watermark = max(round(row["event_timestamp"].timestamp() * 1000) for row in platform.silver)
    platform.send(consent(LEAVER, platform.watermark, allows_personalization=False))
    ingest(platform.settings)
    clean(platform.settings)
    return platform
