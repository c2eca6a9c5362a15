"""Why data is used. Every feature view, training set and model declares one purpose (spec 8.1)."""

from enum import StrEnum


class Purpose(StrEnum):
    """What a person's events may be used for; consent is given, and asked for, per purpose."""

    ESSENTIAL = "essential"
    ANALYTICS = "analytics"
    PERSONALIZATION = "personalization"
    AD_TARGETING = "ad_targeting"
    CONTENT_SAFETY = "content_safety"
