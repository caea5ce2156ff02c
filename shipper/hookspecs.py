"""Every hook that a plugin can implement. A hook only returns a class; the class is the contract."""

from __future__ import annotations

from typing import Any

import pluggy

from shipper.output import Output

PROJECT = "shipper"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class OutputHooks:
    """Entry-point group ``shipper.outputs``: the entry point's name is what users write as ``type``."""

    @hookspec(firstresult=True)
    def shipper_output(self) -> type[Output[Any]]:
        """The class that ships batches to one destination."""
        raise NotImplementedError  # a specification has no body
