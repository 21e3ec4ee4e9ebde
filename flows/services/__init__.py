"""The servers and the worker of `tilewatch up`."""
