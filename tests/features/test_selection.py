"""What may be asked for, and how a wrong question is answered."""

import pytest

from features.decision import PurposeNotDecidableError
from features.errors import PurposeNotAllowedError, SelectionError, UnknownGroupError
from features.groups import CONTENT_POPULARITY, USER_VIEWING_HISTORY
from features.purposes import Purpose
from features.selection import require_purpose, select

GROUPS = (USER_VIEWING_HISTORY, CONTENT_POPULARITY)


def test_a_group_a_feature_and_one_of_its_entities():
    group, titles, feature = select(
        [
            "user_viewing_history_by_user_id",
            "content_popularity.hourly_viewers",
            "user_viewing_history_by_profile_id.recent_titles",
        ],
        ["user_id", "who", "title"],
        GROUPS,
        {"profile_id": "who", "content_id": "title"},
    )  # fmt: skip
    assert [one.name for one in group.group.features] == [one.name for one in USER_VIEWING_HISTORY.features]
    assert (group.entity, group.key_columns, group.is_personal) == ("user_id", ("user_id",), True)
    assert (titles.entity, titles.key_columns, titles.is_personal) == ("content_id", ("title",), False)
    assert titles.columns == {
        "hourly_viewers": "content_popularity__hourly_viewers",
        "content_popularity__age_ms": "content_popularity__age_ms",
    }
    assert (feature.entity, feature.key_columns) == ("profile_id", ("who",))
    assert list(feature.columns.values()) == [
        "user_viewing_history_by_profile_id__recent_titles",
        "user_viewing_history_by_profile_id__age_ms",
    ]


def test_features_of_one_group_come_together_in_the_order_asked_for():
    (one,) = select(["content_popularity.completion_rate", "content_popularity.hourly_viewers"], ["content_id"], GROUPS)
    assert [feature.name for feature in one.group.features] == ["completion_rate", "hourly_viewers"]


@pytest.mark.parametrize(
    ("wanted", "columns", "error", "said"),
    [
        ([], ["user_id"], SelectionError, "no feature is asked for"),
        (["content_popularty"], ["content_id"], UnknownGroupError, "the nearest is content_popularity"),
        (["content_popularity.viewers"], ["content_id"], SelectionError, "no feature 'viewers'; the nearest is hourly"),
        (["content_popularity"], ["user_id"], SelectionError, "needs the column content_id; the rows have user_id"),
        (["user_viewing_history"], ["x"], SelectionError, "needs the column user_id or profile_id; the rows have x"),
        (["user_viewing_history"], ["user_id", "profile_id"], SelectionError,
         "say which is meant: user_viewing_history_by_user_id or user_viewing_history_by_profile_id"),
        (["content_popularity.hourly_viewers", "content_popularity"], ["content_id"], SelectionError,
         "content_popularity.hourly_viewers is asked for twice"),
    ],
)  # fmt: skip
def test_a_wrong_question_says_how_to_mend_it(wanted, columns, error, said):
    with pytest.raises(error, match=said.replace(".", r"\.")):
        select(wanted, columns, GROUPS)


def test_a_purpose_is_obligatory_and_must_be_the_groups():
    selections = select(["content_popularity"], ["content_id"], GROUPS)
    require_purpose(Purpose.PERSONALIZATION, selections)
    with pytest.raises(PurposeNotAllowedError, match="no purpose is given"):
        require_purpose(None, selections)
    with pytest.raises(
        PurposeNotAllowedError, match="declared for the purpose personalization, and was asked for ad_targeting"
    ):
        require_purpose(Purpose.AD_TARGETING, selections)
    with pytest.raises(PurposeNotDecidableError):
        require_purpose(Purpose.ESSENTIAL, selections)
