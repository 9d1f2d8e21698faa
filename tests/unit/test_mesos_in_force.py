"""Flags in force, as masters and slaves report them, against the parameters: recorded from Mesos 0.28.0."""

from __future__ import annotations

from mesos_payloads import payload
from mesos_site import site

from runbook.services.mesos.in_force import differences, of_master, of_slave

SITE = site(more="mesos: {slave: {cpus: 2, mem: 1536}}")
HOST = SITE.hosts[0]


def master_flags(**other: str) -> dict[str, str]:
    """The recorded flags of a master, those that the runbook writes as in the recording of all nine chapters."""
    recorded: dict[str, str] = payload("three-masters/leader_flags.json")["flags"]
    ours = {"ip": HOST.address, "hostname": HOST.address, "port": "8150", "work_dir": "/var/lib/mesos"}
    return {**recorded, **ours, "log_dir": "/var/log/mesos", "zk": SITE.mesos_zk, **other}


def slave_flags(**other: str) -> dict[str, str]:
    recorded: dict[str, str] = payload("three-masters/slave1_flags.json")["flags"]
    ours = {"ip": HOST.address, "hostname": HOST.address, "port": "5051", "work_dir": "/var/lib/mesos"}
    ours |= {"log_dir": "/var/log/mesos", "master": SITE.mesos_zk, "executor_registration_timeout": "5mins"}
    return {**recorded, **ours, "resources": "ports:[8401-8599, 8601-9100];mem:1536;cpus:2", **other}


def test_the_flags_of_the_parameters_are_in_force_whatever_others_are() -> None:
    assert differences(of_master(SITE, HOST), master_flags(max_slave_ping_timeouts="10")) == []
    assert differences(of_slave(SITE, HOST), slave_flags(gc_delay="1days")) == []


def test_a_daemon_that_runs_with_other_flags_is_named_with_both() -> None:
    assert differences(of_master(SITE, HOST), master_flags(quorum="1")) == ["--quorum is 1, expected 2"]
    assert differences(of_slave(SITE, HOST), slave_flags(work_dir="/tmp/mesos")) == [
        "--work_dir is /tmp/mesos, expected /var/lib/mesos"
    ]
    wanted = "cpus:2;mem:1536;ports:[8401-8599,8601-9100]"
    assert differences(of_slave(SITE, HOST), slave_flags(resources="cpus:4")) == [
        f"--resources is cpus:4, expected {wanted}"
    ]
    assert differences(of_slave(SITE, HOST), slave_flags(resources="cpus")) == [
        f"--resources is cpus, expected {wanted}"
    ]


def test_a_flag_that_is_not_given_is_named() -> None:
    flags = master_flags()
    del flags["hostname"]
    assert differences(of_master(SITE, HOST), flags) == [f"--hostname is not given, expected {HOST.address}"]


def test_the_login_of_a_zookeeper_is_not_shown() -> None:
    (said,) = differences(of_master(SITE, HOST), master_flags(zk="zk://me:geheim@a:2181/mesos"))
    assert "geheim" not in said
