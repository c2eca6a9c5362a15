"""Which configurations are tried when a model is tuned: a draw from a declared, finite space."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.errors import ConfigurationError

Value = int | float


def configurations(
    start: Mapping[str, Value], space: Mapping[str, Sequence[Value]], count: int, seed: int
) -> list[dict[str, Value]]:
    """At most `count` different configurations: `start` first, then others of `space`, drawn without replacement.

    Random search covers the settings that matter better than a grid of as many points does (Bergstra & Bengio, JMLR
    2012). The same seed draws the same, and a smaller `count` the beginning of a greater one's.

    Args:
        start: every setting of the model.
        space: the values of each setting that is varied.
        count: at least 1.
        seed: of the draw.

    Raises:
        ConfigurationError: the space varies a setting that the model does not have, or offers no value for one.
    """
    unknown = sorted(space.keys() - start.keys())
    if unknown:
        raise ConfigurationError(f"the search space varies {unknown}, which the model does not have")
    empty = sorted(name for name, values in space.items() if not values)
    if empty:
        raise ConfigurationError(f"the search space offers no value of {empty}")
    names, sizes = sorted(space), [len(space[name]) for name in sorted(space)]
    tried, known = [dict(start)], {tuple(start[name] for name in names)}
    for place in np.random.default_rng(seed).permutation(math.prod(sizes)):
        if len(tried) >= count:
            break
        chosen = tuple(space[name][at] for name, at in zip(names, np.unravel_index(place, sizes), strict=True))
        if chosen not in known:
            known.add(chosen)
            tried.append({**start, **dict(zip(names, chosen, strict=True))})
    return tried
