"""What is seen of the service while it works: measures, logs, traces, deadlines; one place that every request passes.

middleware.py   every HTTP request: counted, timed, logged, given a deadline, turned away when there are too many
request.py      one request as it is watched, HTTP or gRPC
answers.py      what an answer says of itself: degraded, reason, model and version
measures.py     the Prometheus metrics, each declared once
scrape.py       `/metrics`: those of every replica, whichever is asked
deadline.py     how long the request under way may still take
log.py          lines of JSON, without ids of people
trace.py        the trace a request belongs to, and its spans
"""
