"""LightGBM's trees, read from the text that it writes of them."""

import lightgbm


def booster_of(trees: str) -> lightgbm.Booster:
    """LightGBM's model from its own text.

    Raises:
        ValueError: the text is not a whole one. It is looked at first, because LightGBM ends the process, not just the
            call, on some texts that were cut short.
    """
    if not trees.startswith("tree\n") or "end of trees" not in trees:
        raise ValueError("its text of trees is cut short or none")
    try:
        return lightgbm.Booster(model_str=trees)
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(str(error)) from error
