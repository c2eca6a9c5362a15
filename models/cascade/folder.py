"""The cascade as it is saved: a folder with its parts in folders of their own, readable without any code of ours.

cascade.json      {"format": 1, "config": {...}, "parts": those that there are}
catalogue.json    the titles on offer
retrieval/ content/ ranker/    each as its own `save` wrote it
"""

import json
from pathlib import Path
from typing import Any

from models.cascade.cascade import Cascade, CascadeConfig
from models.cascade.catalogue import Catalogue, Offer
from models.content.recommender import ContentRecommender
from models.errors import ConfigurationError, ModelFolderError
from models.ranker.ranker import Ranker
from models.recommendation.recommender import Recommender

FORMAT = 1
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
    described = {"format": FORMAT, "config": cascade.config.as_dict(), "parts": list(parts)}
    (folder / CASCADE_FILE).write_text(json.dumps(described, indent=2))


def load(folder: Path | str) -> Cascade:
    """The cascade that `save` wrote into `folder`, with the parts that it says it has.

    Raises:
        ModelFolderError: a file or a part is missing or broken, or the format is one this version does not read.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / CASCADE_FILE).read_text())
        offers = [Offer.from_dict(one) for one in json.loads((folder / CATALOGUE_FILE).read_text())]
        if described["format"] != FORMAT:
            raise ModelFolderError(
                f"{folder} holds a cascade of format {described['format']}; this version reads {FORMAT}; make it again"
            )
        config, names = CascadeConfig.from_dict(described["config"]), list(described["parts"])
    except (OSError, ValueError, KeyError, TypeError, ConfigurationError) as error:
        raise ModelFolderError(f"{folder} does not hold one whole cascade ({error}); make it again") from error
    unknown = sorted(set(names) - LOADERS.keys())
    if unknown:
        raise ModelFolderError(f"{folder} has parts that this version does not know: {', '.join(unknown)}")
    parts = {name: LOADERS[name](folder / name) for name in names}
    return Cascade(Catalogue({offer.title.content_id: offer for offer in offers}), config, **parts)
