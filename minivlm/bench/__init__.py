"""The benchmark: how fast this package is beside others, and beside itself; every number measured where it runs."""
