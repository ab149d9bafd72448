"""A scripted device: what `listenai talk` is, and what tests and benchmarks drive."""
