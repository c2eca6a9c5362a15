"""Asked as MLflow asks: frames with holes in them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from models.churn.features import COLUMNS
from models.churn.model import ChurnConfig
from models.churn.pyfunc import _load_pyfunc
from models.churn.training import ChurnTraining
from models.task import Place
from models.training_set import read_manifest
from tests.models.churn.planted import write_training_set


def test_what_is_missing_is_unknown(tmp_path: Path) -> None:
    write_training_set(tmp_path, accounts=60)
    rows = {split: pq.read_table(tmp_path / f"split={split}", partitioning=None) for split in ("train", "validation")}
    training = ChurnTraining(ChurnConfig(epochs=1), read_manifest(tmp_path), *rows.values(), Place(threads=1))
    training.epoch()
    training.best().save(tmp_path / "saved")
    served = _load_pyfunc(str(tmp_path / "saved"))
    hours, kind = "user_viewing_history__viewing_hours_per_dow", "user_viewing_history__preferred_content_type"
    frame = pd.DataFrame({hours: [np.arange(7.0), np.nan, None], kind: ["vod", np.nan, "never seen"]})
    holes = served.predict(frame, {"reasons": 1})
    assert len(holes["probability"]) == 3
    assert all(0 < probability < 1 for probability in holes["probability"])
    whole = frame.assign(**{name: np.nan for name in COLUMNS if name not in frame})
    assert served.predict(whole, {"reasons": 1}) == holes
    assert (
        served.predict({"unheard of": [1, 2]})["probability"][0]
        == served.predict(pd.DataFrame({hours: [None, None], kind: [None, None]}))["probability"][1]
    )
