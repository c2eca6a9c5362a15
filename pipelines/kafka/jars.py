"""What the local Kafka broker runs on: a Java that is new enough, and Kafka's jars, which Maven fetches once."""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipelines.errors import JavaMissing, KafkaJarsNotFetched, MavenMissing
from pipelines.processes import locked

OLDEST_JAVA = 17  # what Kafka 4 brokers need

_POM = Path(__file__).resolve().parents[2] / "configs" / "kafka" / "pom.xml"
_STAMP = "pom.sha256"
_MAVEN_TIMEOUT_S = 900

_log = logging.getLogger(__name__)


def find_java() -> str:
    """The `java` of JAVA_HOME, else of PATH. Raises JavaMissing if there is none, or only one that is too old."""
    needed = f"the local Kafka broker needs Java {OLDEST_JAVA} or newer"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise JavaMissing(f"{needed}, and there is no java in {f'JAVA_HOME={home}' if home else 'PATH'}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)  # "1.8.0_402", "17.0.15", "25"
    if version is None:
        raise JavaMissing(f"{needed}, and {java} does not say which it is: {said.strip()!r}")
    if int(version[1]) < OLDEST_JAVA:
        raise JavaMissing(f"{needed}, and {java} is Java {version[1]}: install one, or point JAVA_HOME at it")
    return java


def fetch_jars(libs: Path, pom: Path = _POM) -> None:
    """Have Maven copy the jars that `pom` names (the broker's, if none is given) to `libs`, unless they are there.

    Several processes may call it at once: one fetches, the others wait. The folder appears whole or not at all.
    Raises MavenMissing, KafkaJarsNotFetched.
    """
    pom_hash = hashlib.sha256(pom.read_bytes()).hexdigest()
    libs.parent.mkdir(parents=True, exist_ok=True)
    with locked(libs.with_name(f"{libs.name}.lock")):
        stamp = libs / _STAMP
        if stamp.exists() and stamp.read_text() == pom_hash:
            return
        maven = shutil.which("mvn")
        if maven is None:
            raise MavenMissing(f"the jars that {pom} names are not in {libs} yet: install Maven (mvn)")
        _log.info("Maven fetches the jars that %s names (once)", pom)
        with tempfile.TemporaryDirectory(prefix="libs-", dir=libs.parent) as scratch:
            fresh = Path(scratch) / "libs"
            _copy_with_maven(maven, fresh, pom)
            (fresh / _STAMP).write_text(pom_hash)
            if libs.exists():
                libs.rename(Path(scratch) / "outdated")
            fresh.rename(libs)


def _copy_with_maven(maven: str, target: Path, pom: Path) -> None:
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MAVEN_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as late:
        raise KafkaJarsNotFetched(f"Maven did not fetch the jars within {_MAVEN_TIMEOUT_S} s") from late
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        errors = [line.removeprefix("[ERROR]").strip() for line in said if line.startswith("[ERROR]")]
        why = next((line for line in (*errors, *reversed(said)) if line), "it said nothing")
        raise KafkaJarsNotFetched(f"Maven could not fetch the jars that {pom} names: {why}")
