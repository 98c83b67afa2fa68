"""Which process measures what."""

import pytest

from lib.runs import graph, profiles


@pytest.mark.parametrize("together", [1, 3, 8])
def test_what_asks_no_trained_network_has_a_process_of_its_own(together):
    run = "00-grad-cam"
    p, plan = profiles.parameters(run, "laptop"), profiles.part(run, "plan")
    parts = list(graph.measurements(run, "laptop", together).values())
    assert [job for part in parts for job in part] == plan.jobs(p)
    assert parts[0] == [(p.published, 0)] and graph.asked(run, "laptop", parts[0]) == []
    assert all(len(part) <= together and graph.asked(run, "laptop", part) for part in parts[1:])
    assert max(map(len, parts[1:])) - min(map(len, parts[1:])) <= 1


@pytest.mark.parametrize("run", ["01-attention-shift.photographs", "06-attack-pathways.photographs"])
def test_nothing_waits_for_a_published_network(run):
    jobs = profiles.part(run, "plan").jobs(profiles.parameters(run, "datasets"))
    assert list(graph.measurements(run, "datasets", 8).values()) == [[job] for job in jobs] and len(jobs) >= 5


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_each_network_is_trained_by_one_job_of_the_first_run_that_needs_it(profile):
    networks = {run: graph.networks(run, profile) for run in profiles.declared_runs(profile)}
    found = graph.shared_out(networks, 16)
    digests = [c.digest for configs in found.values() for c in configs]
    assert sorted(digests) == sorted({c.digest for configs in networks.values() for c in configs})
    earlier = set()
    for configs in networks.values():  # a job holds no network of a later run beside those of this one
        own = {c.digest for c in configs}
        for job in found.values():
            mine = {c.digest for c in job} & (own - earlier)
            assert not mine or {c.digest for c in job} <= own
        earlier |= own


@pytest.mark.parametrize("run", profiles.declared_runs("laptop"))
def test_every_job_is_measured_once(run):
    plan, p = profiles.part(run, "plan"), profiles.parameters(run, "laptop")
    measured = [job for part in graph.measurements(run, "laptop", 4).values() for job in part]
    assert sorted(map(str, measured)) == sorted(map(str, plan.jobs(p)))
