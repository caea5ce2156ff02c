"""What a running shipper shows of itself: metrics, health over HTTP, logs."""
