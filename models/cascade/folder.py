"""The cascade as it is saved: a folder with its parts in folders of their own, readable without any code of ours.

cascade.json      {"format": 1, "architecture": "retrieve-rank-diversify", "config": {...}, "parts": those it has}
catalogue.json    the titles on offer
retrieval/ content/ ranker/    each as its own `save` wrote it
"""

import json
from pathlib import Path
from typing import Any

from models.cascade.cascade import Cascade, CascadeConfig
from models.cascade.catalogue import Catalogue, Offer
from models.content.recommender import ContentRecommender
from models.errors import ModelFolderError
from models.ranker.ranker import Ranker
from models.recommendation.recommender import Recommender
from models.saved import describe, described, whole

FORMAT = 1
ARCHITECTURE = "retrieve-rank-diversify"
CASCADE_FILE, CATALOGUE_FILE = "cascade.json", "catalogue.json"
LOADERS: dict[str, Any] = {
    "retrieval": Recommender.load,
    "content": ContentRecommender.load,
    "ranker": Ranker.load,
}
"""The parts there may be, and what reads each."""


def save(cascade: Cascade, folder: Path) -> None:
    """Writes the cascade and the parts it has into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: getattr(cascade, name) for name in LOADERS if getattr(cascade, name) is not None}
    for name, part in parts.items():
        part.save(folder / name)
    offers = [offer.as_dict() for offer in cascade.catalogue.offers.values()]
    (folder / CATALOGUE_FILE).write_text(json.dumps(offers))
    describe(folder / CASCADE_FILE, FORMAT, ARCHITECTURE, config=cascade.config.as_dict(), parts=list(parts))


def load(folder: Path | str) -> Cascade:
    """The cascade that `save` wrote into `folder`, with the parts that it says it has.

    Raises:
        ModelFolderError: a file or a part is missing or broken, or the format is one this version does not read.
    """
    folder = Path(folder)
    with whole(folder, "cascade"):
        description = described(folder / CASCADE_FILE, FORMAT, ARCHITECTURE)
        offers = [Offer.from_dict(one) for one in json.loads((folder / CATALOGUE_FILE).read_text())]
        config, names = CascadeConfig.from_dict(description["config"]), list(description["parts"])
    unknown = sorted(set(names) - LOADERS.keys())
    if unknown:
        raise ModelFolderError(f"{folder} has parts that this version does not know: {', '.join(unknown)}")
    parts = {name: LOADERS[name](folder / name) for name in names}
    return Cascade(Catalogue({offer.title.content_id: offer for offer in offers}), config, **parts)
