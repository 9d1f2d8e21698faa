"""The SSH core: steps state what should be, the engine shows the difference and changes only that.

steps.py    what can be desired of a host: File, Lines, Directory, Package, Rpm, Service, CommandService, Command
shell.py    quoting, and the framing that carries many steps in one execution
session.py  one SSH connection per host, kept open: scripts with a deadline, uploads that resume, gateways
hosts.py    the fleet, with its bounded pool: all at once, or one after the other
engine.py   probe -> plan -> apply -> probe again, in as few executions as the steps allow
results.py  the table hosts x steps that every call ends with
checks.py   claims about the cluster, polled until they hold
gates.py    questions asked before what can hurt
"""
