"""Rehearsal double of Marathon 1.1.1, for the lab's nodes.

It speaks to Mesos over the scheduler HTTP API and ZooKeeper only, so that it runs unchanged against a real Mesos
0.28.0 master (Marathon 1.1.1 itself uses libmesos instead). Instances elect a leader through `/marathon/leader`, the
others pass requests on to it, and its state is in ZooKeeper under `/marathon/state`: in JSON, where Marathon writes
protobuf, under the same names. Its answers have the forms that Marathon's REST API documentation of 1.0 and the
sources of 1.1 give. It needs Python 3.11 and kazoo, and holds a lab's tens of tasks.

- `flags`: the command line. `web`: HTTP, as Jetty and Marathon frame it. `zk`: election and state. `daemon`: the
  program, which answers itself while it leads and else proxies.
- `apps`: app definitions: defaults, validation, updates. `tasks`: one task, and whether an offer fits it.
- `deployments`: plans of steps. `scheduler`: the leader's state and what follows from it: launches, kills, steps.
- `mesos`: the conversation with Mesos. `health`: health checks. `events`: the event bus. `api`: the REST API.

What it leaves out, and refuses where it is asked for: writing and reading single groups, COMMAND and HTTPS health
checks, persistent volumes, IP per task, event callbacks, authentication and HTTPS; LIKE and UNLIKE without a value or
with an ill-formed expression, and a PUT of no app at all, which 1.1.1 takes.

Where it differs from 1.1.1 without a refusal, and no contract test claims otherwise:

- It takes what 1.1.1 refuses: a port given twice, empty or other resource roles, `type` MESOS with `docker`, the
  network USER, other protocols than tcp and udp, ill-named port definitions, an app below an app, bad label selectors.
- Answers: the text form of tasks, globs in ids, sets in label selectors, one deployment for each app of a PUT of many,
  dependencies as they were given, headers against caching, a relative `Location`, a page at `/`.
- Events: those of health checks added and removed and of the scheduler's registration, and groups other than the root.
- Addresses that are not served: schemas, plugins, artifacts and subscriptions below `/v2`, `/logging`, `/status`,
  `/help`, `/ui`, HEAD and OPTIONS.
"""
