"""For those who test against shipper, or against what it talks to: fake AWS services in this process.

``shipper.testing.kinesis.FakeKinesis``, ``shipper.testing.kms.FakeKms`` and ``shipper.testing.rds.FakeRds`` are real
HTTP servers on loopback that boto3 talks to, with every fault on order. ``shipper demo`` runs on them.
"""
