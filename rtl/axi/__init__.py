"""AXI4 and AXI4-Lite around the core."""
