"""The settings of the service that answers: `serving` in the tree of `pipelines.settings`."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.settings_section import Count, Days, ProjectPath, Seconds, Section, Share


class TokenSettings(Section):
    """Whose bearer tokens (RS256 or HS256) the service accepts."""

    jwks: str | None = Field(
        default=None, description="keys of an identity provider: a file or an https address; null: one secret (HS256)"
    )
    secret_file: ProjectPath | None = Field(
        default=None, description="the secret where there is no jwks, 32 bytes or more; or REEL_TOKEN_SECRET"
    )
    audience: str = Field(default="reel", description="the service that a token must be for")
    issuer: str | None = Field(default=None, description="who must have signed it")


class ExperimentSettings(Section):
    """A model's challenger is tried beside its champion, on a share of those who are asked about."""

    model: Literal["cascade", "recommendation", "churn", "cdn", "anomaly"] = Field(
        description="the model whose alias `challenger` is tried"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="of people (series, where it is about none), told apart by a stable hash"
    )
    mode: Literal["ab", "shadow"] = Field(
        description="ab: the challenger answers them; shadow: the champion answers, both are logged"
    )


class AnswerLogSettings(Section):
    """How answers that are kept come to be written."""

    share: Share = Field(description="of answers that are kept; 0: nothing is logged")
    flush_s: Seconds = Field(default=60, description="how long an answer waits to be written")
    most_waiting: Count = Field(default=10_000, description="answers that wait at most; others are dropped, counted")
    retention_days: Days = Field(description="how long they are kept; `reel maintain` deletes older ones")


class PredictionSettings(AnswerLogSettings):
    """What is kept of answers that models gave, to judge them by what came of it; under work_dir."""

    share: Share = Field(default=1, description="of answers, drawn at random; 0: nothing is logged")
    retention_days: Days = Field(default=90, description="how long they are kept; `reel maintain` deletes older ones")


class ServedFeatureSettings(AnswerLogSettings):
    """What is kept of features that look-ups answered, for `reel consistency`; under work_dir."""

    share: Share = Field(default=0.01, description="of keys that are asked for, drawn at random; 0: nothing is logged")
    retention_days: Days = Field(default=30, description="how long they are kept; `reel maintain` deletes older ones")


class ChurnBands(Section):
    """From which probability on an account's band is `medium`, and from which `high`."""

    medium: Annotated[float, Field(gt=0, lt=1)] = 0.1
    high: Annotated[float, Field(gt=0, lt=1)] = 0.3


class ServingSettings(Section):
    """How features and predictions are answered."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    as_of: Literal["watermark", "now"] = Field(
        default="watermark", description="watermark: as of the newest event in the store (replays); now: the wall clock"
    )
    tokens: TokenSettings = TokenSettings()
    requests_per_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="what one caller may ask of one process that answers; null: no limit"
    )
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="where features are looked up over gRPC; null: nowhere"
    )
    traces_url: str | None = Field(
        default=None, description="who collects traces (OTLP over HTTP), as http://host:4318/v1/traces; null: nobody"
    )
    log_requests: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1, description="the share of good answers that are logged; all others always are"
    )
    replicas: Annotated[int, Field(ge=1)] = Field(default=1, description="processes that answer")
    model_refresh_s: Seconds = Field(default=10, description="how often it is asked which versions are champions")
    model_processes: Literal["one", "each"] = Field(
        default="one", description="one: a process runs all models; each: every model has processes of its own"
    )
    model_replicas: Count = Field(default=1, description="processes that run a model; more need model_processes: each")
    experiments: dict[str, ExperimentSettings] = Field(
        default_factory=dict, description="by name, which is part of the hash: another name divides people anew"
    )
    predictions: PredictionSettings = PredictionSettings()
    served_features: ServedFeatureSettings = ServedFeatureSettings()
    churn_bands: ChurnBands = ChurnBands()
