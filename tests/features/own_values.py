"""Values that are typical of the events' own properties, none of which is anybody's personal data."""

import random
import uuid
from collections.abc import Callable

TITLES = (
    *("Apollo 13", "2001: A Space Odyssey", "Blade Runner 2049 2017", "300 2006", "Ocean's 11", "24", "9 to 5"),
    *("The 400 Blows 1959", "Se7en 1995", "1917 2019", "Beverly Hills 90210", "The Name of the Rose", "U-571 2000"),
)
WORDS = (
    *("home", "search", "guide", "settings/profile", "details:vod_12345", "kids home", "wifi", "android_tv", "akamai"),
    *("too expensive", "manifest not found", "license expired", "decoder stalled", "quota exceeded at 80 %"),
)
RESOLUTIONS = ("1920x1080", "3840x2160", "1280x720@60", "1080p", "2160p HDR10", "avc1.640028", "hvc1.2.4.L153.B0")


def own_values(seed: int, each: int) -> list[str]:
    """`each` values of every kind."""
    chance = random.Random(seed)
    below = chance.randrange

    def day() -> str:
        return f"20{below(70):02d}-{below(1, 13):02d}-{below(1, 29):02d}"

    def clock() -> str:
        return f"{below(24):02d}:{below(60):02d}:{below(60):02d}"

    kinds: tuple[Callable[[], str], ...] = (
        lambda: f"vod_{below(100_000):05d}",
        lambda: f"ch_{below(1_000)}",
        lambda: str(uuid.UUID(int=chance.getrandbits(128))),
        lambda: f"evt_{uuid.UUID(int=chance.getrandbits(128))}",
        lambda: f"sess_{chance.getrandbits(64):016x}",
        lambda: f"{chance.getrandbits(128):032x}",
        lambda: chance.choice(RESOLUTIONS),
        lambda: f"ERR_{below(10_000)}",
        lambda: f"0x{chance.getrandbits(32):08X} (-{below(10_000)})",
        lambda: f"HTTP {chance.choice((403, 404, 500, 503))} at {below(10_000_000)} ms",
        lambda: str(below(10 ** below(1, 12))),
        lambda: str(chance.getrandbits(63)),
        lambda: repr(chance.random() * 10 ** below(6)),
        lambda: f"{below(100)}.{below(100):02d} EUR",
        lambda: ".".join(str(below(200)) for _ in range(3)),
        lambda: f"{below(80, 140)}.0.{below(4_000, 7_000)}.{below(300)}",
        lambda: chance.choice(TITLES),
        lambda: f"S{below(20):02d}E{below(30):02d} {chance.choice(TITLES)}",
        lambda: f"{day()}T{clock()}.{below(1_000):03d}Z",
        lambda: f"{day()} {clock()}",
        lambda: str(below(1_600_000_000_000, 2_000_000_000_000)),
        lambda: str(below(1_600_000_000_000_000, 2_000_000_000_000_000)),
        lambda: f"https://cdn-{below(9)}.example.net/vod/{below(100_000)}/seg_{below(10_000)}.ts?t={below(10**9)}",
        lambda: f"bytes {below(10**7)}-{below(10**8)}/{below(10**9)}",
        lambda: chance.choice(WORDS),
    )
    return [kind() for kind in kinds for _ in range(each)]
