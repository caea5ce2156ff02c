"""shipper: Database Activity Streams into the SIEM you have, with none lost."""

__version__ = "0.1.0"
