"""The rig as an output that has to be sent one batch at a time: ``type = "rig_ordered"``."""

from __future__ import annotations

from shipper.hookspecs import hookimpl

from . import RigOutput


class OrderedRigOutput(RigOutput):
    ordered = True


@hookimpl
def shipper_output() -> type[OrderedRigOutput]:
    return OrderedRigOutput
