"""For those who test against shipper, or against what it talks to.

``OutputContract`` is what every output has to pass; ``shipper.testing.nasty`` has an output and a source that
misbehave on order, to test an engine with. ``shipper.testing.kinesis.FakeKinesis``, ``shipper.testing.kms.FakeKms`` and
``shipper.testing.rds.FakeRds`` are real HTTP servers on loopback that boto3 talks to, with every fault on order;
``shipper demo`` runs on them. ``shipper.testing.splunk_hec.FakeSplunkHec`` is a Splunk HTTP Event Collector, as strict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shipper.testing.contract import OutputContract

__all__ = ["OutputContract"]


def __getattr__(name: str) -> Any:
    """``OutputContract`` is imported when it is asked for: it needs pytest, which ``shipper demo`` does not have."""
    if name != "OutputContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # noqa: PLC0415  # see above

    pytest.register_assert_rewrite("shipper.testing.contract")
    from shipper.testing.contract import OutputContract  # noqa: PLC0415  # after its asserts are made to speak

    return OutputContract
