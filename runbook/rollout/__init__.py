"""Chapters in order, and the record that they leave: what a rollout is made of.

run.py       the rollout: which chapters, one kernel after the other, stops at the first that failed
engine.py    papermill's engine: kernels over IPC, secrets masked, the truth about cells that never ran
journal.py   what happened, a synced line at a time, each carrying the hash of the one before
record.py    the folder that is left, closed with hashes, and how it is verified
report.py    the record as one page
lock.py      one rollout of a site at a time
progress.py  what a person sees meanwhile
"""

import sys

# jsonschema, by which nbformat validates, imports a parser for a format that notebooks do not use ("iri"), and
# building its grammar takes three seconds of every start. It does without where the import fails.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
