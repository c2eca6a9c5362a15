"""A cascade ranks by what is known of titles now, not when it was assembled."""

from pathlib import Path

import pytest

from features.groups.content_popularity import CONTENT_POPULARITY
from models.cascade.cascade import Cascade, CascadeConfig
from models.cascade.catalogue import VIEWERS, Catalogue, Offer
from models.content.titles import Title
from models.ranker.features import TITLE_NUMBERS
from serving.hosting.questions import Titles
from serving.hosting.servables import ServedCascade
from serving.hosting.title_numbers import SELECTIONS, TitleNumbers
from serving.online_store import open_online_store
from serving.settings import ServingSettings
from tests.serving import platform


@pytest.fixture
def settings(tmp_path: Path) -> ServingSettings:
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        platform.fill(store)
    return ServingSettings(
        online_store_url=f"lmdb://{tmp_path}/online", mlflow_tracking_uri="sqlite:////nowhere", as_of="watermark"
    )


@pytest.fixture
def served() -> ServedCascade:
    """Assembled when title-02 was watched most; without models, so the most watched come first."""
    viewers = {"title-02": 9.0, "title-05": 1.0, "title-07": 5.0}
    offers = {
        name: Offer(Title(name), {VIEWERS: number, "content_runtime_ms": 6.0}) for name, number in viewers.items()
    }
    return ServedCascade(Cascade(Catalogue(offers), CascadeConfig(diversity=0.0)))


def first(served: ServedCascade) -> list[str]:
    (ranked,) = served.answer([Titles([], 3)])
    return [name for name, _ in ranked.titles]


def test_all_numbers_of_groups_are_read() -> None:
    columns = {column for one in SELECTIONS for column in one.columns.values() if "age_ms" not in column}
    assert columns == {column for column in TITLE_NUMBERS.values() if "__" in column}


def test_the_newest_numbers_decide_and_what_the_catalogue_says_stays(
    settings: ServingSettings, served: ServedCascade
) -> None:
    assert first(served) == ["title-02", "title-07", "title-05"]
    TitleNumbers(settings).bring_to(served)
    # The store's row of title-05, as it was written; of the others it has none.
    name = CONTENT_POPULARITY.name
    assert served.cascade.catalogue.offers["title-05"].numbers == {
        VIEWERS: 100.0,
        f"{name}__completion_rate": 0.75,
        f"{name}__trending_velocity": 1.5,
        "content_runtime_ms": 6.0,
    }
    assert first(served) == ["title-05", "title-02", "title-07"]


def test_without_the_store_what_is_known_stays(settings: ServingSettings, served: ServedCascade) -> None:
    gone = settings.model_copy(update={"online_store_url": "redis://127.0.0.1:1/0"})
    TitleNumbers(gone).bring_to(served)
    assert first(served) == ["title-02", "title-07", "title-05"]


def test_it_is_read_again_when_it_is_old_or_the_cascade_another(
    settings: ServingSettings, served: ServedCascade
) -> None:
    numbers = TitleNumbers(settings.model_copy(update={"popular_refresh_s": 3600.0}))
    numbers.bring_to(served)
    told = served.cascade
    numbers.bring_to(served)
    assert served.cascade is told, "it was told lately"
    other = ServedCascade(Cascade(Catalogue({"title-05": Offer(Title("title-05"))}), CascadeConfig()))
    numbers.bring_to(other)
    assert other.cascade.catalogue.offers["title-05"].numbers[VIEWERS] == 100.0
    old = TitleNumbers(settings.model_copy(update={"popular_refresh_s": 1e-9}))
    old.bring_to(served)
    again = served.cascade
    old.bring_to(served)
    assert served.cascade is not again
