"""What every output has to pass, ours and third parties': inherit the class, and its tests are yours.

Needs pytest. ``docs/writing-an-output.md`` shows how to use it.
"""

from __future__ import annotations

from shipper.testing.contract.bookmarks import Bookmarks
from shipper.testing.contract.conduct import Conduct
from shipper.testing.contract.failing import Failing
from shipper.testing.contract.sending import Sending

__all__ = ["OutputContract"]


class OutputContract(Sending, Failing, Bookmarks, Conduct):
    """The contract of an output as tests. Inherit it in a test file, in a class whose name begins with ``Test``.

    To be overridden: the fixture ``destination``, ``output`` and ``received``; where a destination can be made to
    misbehave, ``refuse_next``, ``go_away`` and ``come_back``; what it cannot do is said, with the reason, in
    ``unsupported``; ``secrets`` names the secret texts of the configuration. ``shipper.testing.contract.ground`` has
    the words for each.
    """
