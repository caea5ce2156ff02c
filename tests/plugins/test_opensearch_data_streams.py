"""The OpenSearch output and data streams of a real server: what is made for them, and what a rollover means."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.opensearch import Server
from shipper.testing.contract.events import event
from shipper_opensearch import mapping
from support.search import Search, send

pytestmark = pytest.mark.xdist_group("opensearch")


@pytest.fixture
def search(opensearch_server: Server) -> Iterator[Search]:
    made = Search(opensearch_server)
    yield made
    made.close()


def test_a_data_stream_is_made_by_the_managed_template(search: Search) -> None:
    output = search.output(data_stream="audit", template="manage")
    send(output, event(1))
    assert list(send(output, event(1)).already_stored) == [0]
    (stream,) = search.api("GET", "/_data_stream/audit")["data_streams"]
    assert stream["template"] == "shipper-audit"
    assert search.ids("audit") == [event(1).id]


def test_check_tells_an_index_from_a_data_stream(search: Search) -> None:
    """Without a template for data streams, a server makes an ordinary index of that name, and says nothing."""
    output = search.output(data_stream="audit")
    assert not send(output, event(1)).failed
    (fault,) = [check for check in output.check() if not check.ok]
    assert fault.detail == "audit is an index, and no data stream"
    assert "template" in fault.mend


def test_across_a_rollover_what_is_sent_again_is_there_twice(search: Search) -> None:
    """As the manual says: an id is known in one backing index."""
    output = search.output(data_stream="audit", template="manage")
    send(output, event(1))
    search.api("POST", "/audit/_rollover")
    assert not send(output, event(1)).already_stored
    assert list(send(output, event(1)).already_stored) == [0]
    assert search.ids("audit") == [event(1).id] * 2


def test_a_data_stream_rolls_over_by_a_policy_where_the_cluster_can(search: Search) -> None:
    """Index state management is a plugin: without it events pass all the same, and ``check`` says what is missing."""
    output = search.output(data_stream="audit", template="manage")
    assert not send(output, event(1)).failed
    (rollover,) = [check for check in output.check() if check.subject == "rollover"]
    assert rollover.ok
    status, kept = search.api.try_("GET", f"/_plugins/_ism/policies/{mapping.template_name('audit')}")
    if status == 400:
        assert "no handler found" in kept["error"]
        assert "has no index state management" in rollover.detail
        return
    assert rollover.detail == "a policy is there"
    (state,) = kept["policy"]["states"]
    (wanted,) = mapping.policy("audit")["policy"]["states"]
    assert wanted["actions"][0]["rollover"].items() <= state["actions"][0]["rollover"].items()
