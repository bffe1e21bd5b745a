"""Where flows come from that stand elsewhere: see `upwell.runner.storage`."""
