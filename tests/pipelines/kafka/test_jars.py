"""What the local broker runs on is found, fetched once, and its absence is said in one line."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from pipelines.errors import JavaMissing, KafkaJarsNotFetched, MavenMissing
from pipelines.kafka.jars import fetch_jars, find_java

FETCH = (
    "import sys; from pathlib import Path; from pipelines.kafka.jars import fetch_jars; fetch_jars(Path(sys.argv[1]))"
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_java_is_said(programs: Path) -> None:
    with pytest.raises(JavaMissing, match="needs Java 17 or newer, and there is no java in PATH"):
        find_java()


def test_an_old_java_is_named(programs: Path) -> None:
    write_program(programs / "java", """echo 'openjdk version "1.8.0_402"' >&2""")
    with pytest.raises(JavaMissing, match=r"bin/java is Java 8: install one"):
        find_java()


@pytest.mark.parametrize("version", ["17.0.15", "25", "25.0.1"])
def test_a_new_java_is_taken(programs: Path, version: str) -> None:
    # The JVM announces options of the environment before its version.
    script = f"""echo 'Picked up JAVA_TOOL_OPTIONS: -Dx=1' >&2; echo 'openjdk version "{version}" 2025-04-15' >&2"""
    write_program(programs / "java", script)
    assert find_java() == str(programs / "java")


def test_java_home_goes_before_path(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(programs / "java", """echo 'openjdk version "21"' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(JavaMissing, match=r"JAVA_HOME=.*jdk"):
        find_java()

    write_program(tmp_path / "jdk" / "bin" / "java", """echo 'openjdk version "17"' >&2""")
    assert find_java() == str(tmp_path / "jdk" / "bin" / "java")


def test_no_maven_is_said(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(MavenMissing, match="install Maven"):
        fetch_jars(tmp_path / "libs")


def test_mavens_reason_is_said_and_no_folder_left(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "mvn", "echo '[ERROR] the mirror does not answer'; echo '[ERROR] see the manual'; exit 1")
    with pytest.raises(KafkaJarsNotFetched, match=r"pom.xml names: the mirror does not answer$"):
        fetch_jars(tmp_path / "libs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "libs.lock"]


@pytest.mark.kafka
@pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven (mvn) is not installed")
def test_two_at_once_fetch_once_and_whole(tmp_path: Path, project_root: Path) -> None:
    libs = tmp_path / "libs"
    both = [subprocess.Popen([sys.executable, "-c", FETCH, str(libs)], cwd=project_root) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]

    names = {path.name.rpartition("-")[0] for path in libs.glob("*.jar")}
    assert {"kafka_2.13", "kafka-clients", "kafka-raft", "scala-library", "log4j-slf4j-impl"} <= names
    assert [path.name for path in tmp_path.glob("libs-*")] == []

    fetched = libs.stat().st_ino
    fetch_jars(libs)
    assert libs.stat().st_ino == fetched

    (libs / "pom.sha256").write_text("another pom's")
    (libs / "outdated.jar").touch()
    fetch_jars(libs)
    assert not (libs / "outdated.jar").exists()
    assert {path.name.rpartition("-")[0] for path in libs.glob("*.jar")} == names


def test_docker_runs_the_version_that_maven_fetches(project_root: Path) -> None:
    folder = project_root / "configs" / "kafka"
    dependencies = ElementTree.parse(folder / "pom.xml").iterfind(".//{*}dependency")
    versions = {element.findtext("{*}artifactId"): element.findtext("{*}version") for element in dependencies}
    compose = yaml.safe_load((folder / "compose.yaml").read_text())

    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{versions['kafka_2.13']}"
    assert compose["services"]["kafka"]["ports"] == ["127.0.0.1:9092:9092"]
