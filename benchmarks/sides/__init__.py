"""What is measured: zoo and the others, one file each, with `run(job, watch) -> plain values`."""
