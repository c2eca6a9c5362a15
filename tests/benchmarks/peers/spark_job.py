"""Kafka to Parquet in PySpark's structured streaming: one query a topic, each message decoded once by `from_avro`.

Runs in Spark's own environment (see `spark.py`): `python spark_job.py JOB.json`. Its last line is one JSON object.
"""

import json
import sys
import time

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.streaming import StreamingQuery

HEADER_BYTES = 5


def main() -> None:
    with open(sys.argv[1]) as file:
        job = json.load(file)
    spark = (
        SparkSession.builder.master(f"local[{job['cores']}]")
        .config("spark.jars", ",".join(job["jars"]))
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    started = time.monotonic()
    queries = [start(spark, job, topic, writers) for topic, writers in job["topics"].items()]
    for query in queries:
        query.awaitTermination()
    seconds = time.monotonic() - started
    messages = sum(spark.read.parquet(f"{job['folder']}/{topic}").count() for topic in job["topics"])
    print(json.dumps({"messages": messages, "seconds": seconds}))


def start(spark: SparkSession, job: dict, topic: str, writers: dict[str, list[str]]) -> StreamingQuery:
    """The query of one topic, over what there is now; `writers` are event and Avro schema by schema id."""
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", job["bootstrap"])
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    return (
        decoded(messages, writers)
        .writeStream.format("parquet")
        .option("path", f"{job['folder']}/{topic}")
        .option("checkpointLocation", f"{job['folder']}/checkpoints/{topic}")
        .trigger(availableNow=True)
        .start()
    )


def decoded(messages: DataFrame, writers: dict[str, list[str]]) -> DataFrame:
    """One column for each event: its record where the message is one, else null."""
    header = F.hex(F.expr(f"substring(value, 1, {HEADER_BYTES})"))
    body = F.expr(f"substring(value, {HEADER_BYTES + 1})")
    records = [
        F.when(header == f"{int(schema_id):010X}", from_avro(body, schema, {"mode": "PERMISSIVE"})).alias(event)
        for schema_id, (event, schema) in writers.items()
    ]
    return messages.select("topic", "partition", "offset", *records)


if __name__ == "__main__":
    main()
