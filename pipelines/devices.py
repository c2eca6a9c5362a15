"""What kind of device an event came from, by its User-Agent and its `device_type` (spec 3.2).

The device type was given when the device signed in, so it decides where it says what the device is. Where it does not
(a browser and an app for Android run on anything), the agent decides, in the order of `_AGENT_RULES`.

| class   | device types                                             | agents                                          |
|---------|----------------------------------------------------------|-------------------------------------------------|
| tv      | android_tv, google_tv, smart_tv, tizen, webos, vidaa ... | Tizen, webOS, HbbTV, Android TV, BRAVIA, AQUOS  |
| stb     | stb, set_top_box, apple_tv, roku, fire_tv, chromecast    | Apple TV, Roku, Fire TV (AFT...), Chromecast    |
| console | console, playstation, xbox, nintendo_switch ...          | PlayStation, Xbox, Nintendo                     |
| phone   | phone, smartphone, iphone, android_phone                 | iPhone, iPod, Windows Phone, Android + "Mobile" |
| tablet  | tablet, ipad, android_tablet                             | iPad, Kindle, Android without "Mobile"          |
| desktop | desktop, pc, laptop, mac                                 | Windows, macOS, Linux, ChromeOS                 |
| other   | any other                                                | any other, crawlers among them                  |

That Android without "Mobile" is a tablet is how browsers name themselves; an app's own agent (Dalvik) never says it,
and most are phones. An iPad that asks for desktop pages calls itself
a Mac, and only its device type tells.
"""

import re
from enum import StrEnum
from functools import lru_cache

from ua_parser import parse

_AGENTS_REMEMBERED = 65_536
_LONGEST_AGENT = 512  # characters; what is longer was made to be slow


class DeviceClass(StrEnum):
    """The kinds of devices that are told apart."""

    TV = "tv"
    SET_TOP_BOX = "stb"
    CONSOLE = "console"
    PHONE = "phone"
    TABLET = "tablet"
    DESKTOP = "desktop"
    OTHER = "other"


_DEVICE_TYPES: dict[DeviceClass, tuple[str, ...]] = {
    DeviceClass.TV: (
        *("tv", "android_tv", "google_tv", "smart_tv", "smarttv", "connected_tv", "tizen", "tizen_tv", "samsung_tv"),
        *("webos", "webos_tv", "lg_tv", "vidaa", "hisense_tv", "sony_tv", "panasonic_tv", "philips_tv", "vizio"),
        *("roku_tv", "hbbtv"),
    ),
    DeviceClass.SET_TOP_BOX: (
        *("stb", "set_top_box", "settopbox", "apple_tv", "appletv", "tvos", "roku", "fire_tv", "firetv"),
        *("fire_tv_stick", "chromecast", "streaming_stick"),
    ),
    DeviceClass.CONSOLE: (
        *("console", "game_console", "playstation", "ps4", "ps5", "xbox", "xbox_one", "xbox_series"),
        *("nintendo", "nintendo_switch"),
    ),
    DeviceClass.PHONE: ("phone", "smartphone", "mobile_phone", "iphone", "android_phone", "windows_phone"),
    DeviceClass.TABLET: ("tablet", "ipad", "android_tablet", "fire_tablet"),
    DeviceClass.DESKTOP: ("desktop", "pc", "laptop", "mac", "macos", "windows", "chromebook"),
}
_BY_TYPE = {name: kind for kind, names in _DEVICE_TYPES.items() for name in names}

# On "device brand | device family | system | browser" of the parsed agent, and what of it the parser leaves out.
_AGENT_RULES: tuple[tuple[DeviceClass, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (DeviceClass.OTHER, r"^Spider\b"),
        (DeviceClass.CONSOLE, r"PlayStation|\bXbox\b|\bNintendo\b"),
        (DeviceClass.SET_TOP_BOX, r"Apple ?TV|\bATV OS X\b|\btvOS\b|\bAFT\w+|Fire ?TV|Chromecast|\bCrKey\b"),
        (DeviceClass.SET_TOP_BOX, r"set-?top|\bSTB\b|\bRoku/(?!.*\bTV\b)"),
        (DeviceClass.TV, r"Smart-?TV|HbbTV|Inettv|Web0S|webOS.?TV|Tizen.*\bTV\b|Roku|BRAVIA|AQUOS|VIDAA|NetCast"),
        (DeviceClass.TV, r"Android ?TV|Google ?TV|\bTV\b"),
        (DeviceClass.TABLET, r"iPad|Kindle|\bTablet\b|PlayBook"),
        (DeviceClass.PHONE, r"iPhone|iPod|Windows Phone|Android.*\bMobile\b|\bDalvik/|BlackBerry|KaiOS"),
        (DeviceClass.TABLET, r"Android"),
        (DeviceClass.PHONE, r"\biOS\b"),
        (DeviceClass.DESKTOP, r"Windows|Mac OS X|macOS|\bLinux\b|Ubuntu|Fedora|Debian|Chrome OS|\bCrOS\b|BSD"),
    )
)


@lru_cache(_AGENTS_REMEMBERED)
def device_class(agent: str | None, device_type: str | None) -> DeviceClass | None:
    """The kind of device; None where neither the agent nor the device type says anything."""
    decided = _BY_TYPE.get(re.sub(r"[^a-z0-9]+", "_", device_type.lower()).strip("_")) if device_type else None
    if decided is not None:
        return decided
    if agent:
        return _class_of_agent(agent[:_LONGEST_AGENT])
    return DeviceClass.OTHER if device_type else None


def _class_of_agent(agent: str) -> DeviceClass:
    parsed = parse(agent)
    device, system, browser = parsed.device, parsed.os, parsed.user_agent
    described = " | ".join(
        (
            f"{device.brand or ''} {device.family}" if device else "",
            system.family if system else "",
            browser.family if browser else "",
            agent,
        )
    )
    return next((kind for kind, pattern in _AGENT_RULES if pattern.search(described)), DeviceClass.OTHER)
