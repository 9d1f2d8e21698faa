"""Rehearsal doubles of mesos-master and mesos-slave 0.28.0, for the lab's nodes.

They answer as the recorded Mesos 0.28.0 answers (tests/payloads/mesos-0.28.0), keep their election in ZooKeeper, and
run tasks as processes and Docker containers; frameworks talk to them over Mesos' scheduler HTTP API only, so that any
one of them can be replaced by the real program. Between themselves, master and slave speak JSON over HTTP under
`/rehearsal/`. They need Python 3.11 and kazoo, nothing else of this project, and hold a lab of a few nodes with tens
of tasks.

What they leave out, and say so where it is asked for: custom executors (command tasks only), reservations, volumes of
Mesos' own, quota, inverse offers, authentication, fetching of URIs, the protobuf encoding.
"""
