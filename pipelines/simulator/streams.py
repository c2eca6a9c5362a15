"""Random numbers by purpose: one independent stream per (seed, purpose, day), so no part disturbs another."""

from zlib import crc32

import numpy as np


def stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """Give the generator of this purpose and position (a day, a week); the same for ever for the same arguments."""
    return np.random.Generator(np.random.SFC64([seed, crc32(purpose.encode()), *position]))
