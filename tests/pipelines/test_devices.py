"""Agents of real devices (`agents.tsv`), each with the class that somebody who holds the device would give."""

from pathlib import Path

import pytest

from pipelines.devices import DeviceClass, device_class

KNOWN = [tuple(line.split("\t", 1)) for line in (Path(__file__).parent / "agents.tsv").read_text().splitlines()]


@pytest.mark.parametrize(("kind", "agent"), KNOWN)
def test_agents(kind: str, agent: str):
    assert device_class(agent, None) == kind
    # A type that runs on anything leaves it to the agent.
    assert device_class(agent, "browser") == kind
    assert device_class(agent, "") == kind


@pytest.mark.parametrize(
    ("device_type", "kind"),
    [
        ("android_tv", "tv"), ("Android TV", "tv"), ("smart-tv", "tv"), ("SmartTV", "tv"), ("tizen", "tv"),
        ("webOS", "tv"), ("vidaa", "tv"), ("roku_tv", "tv"),
        ("apple_tv", "stb"), ("Apple TV", "stb"), ("fire_tv", "stb"), ("roku", "stb"), ("chromecast", "stb"),
        ("STB", "stb"), ("set-top box", "stb"),
        ("playstation", "console"), ("PS5", "console"), ("xbox", "console"), ("Nintendo Switch", "console"),
        ("phone", "phone"), ("iPhone", "phone"), ("android_phone", "phone"), ("smartphone", "phone"),
        ("tablet", "tablet"), ("iPad", "tablet"), ("android_tablet", "tablet"),
        ("desktop", "desktop"), ("laptop", "desktop"), ("PC", "desktop"), ("mac", "desktop"),
    ],
)  # fmt: skip
def test_a_device_type_that_says_what_it_is_decides(device_type: str, kind: str):
    assert device_class(None, device_type) == kind
    assert device_class("", device_type) == kind
    assert {device_class(agent, device_type) for _, agent in KNOWN} == {kind}


def test_an_ipad_that_asks_for_desktop_pages():
    agent = (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17 Safari/605"
    )
    assert device_class(agent, None) == "desktop"
    assert device_class(agent, "ipad") == "tablet"


def test_without_an_agent_and_a_type_nothing_is_said():
    assert device_class(None, None) is None
    assert device_class("", "") is None
    assert device_class(None, "fridge") == DeviceClass.OTHER
    assert device_class(None, "___") == DeviceClass.OTHER


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["a", "(", "Mozilla/5.0 (", "Android ", "; ", "\x00", "TV/", "é"])
def test_an_agent_that_was_made_to_be_slow_is_not(unit: str):
    assert device_class(unit * 100_000, None) in DeviceClass
