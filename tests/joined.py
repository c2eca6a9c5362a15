"""`reel` processes that work on the Ray of the session, rather than start one of their own, which takes long."""

import ray

from pipelines.cluster import SUBMITTED_JOB


def session_ray() -> dict[str, str]:
    """What the environment of such a process says of its Ray; `ray_session` must have started it.

    As in a job submitted to a cluster, the workers run this very code, which has not to be packed and sent.
    """
    return {"REEL_RAY_ADDRESS": ray.get_runtime_context().gcs_address, SUBMITTED_JOB: "{}"}
