"""`python -m lib kernel -f FILE`: a kernel for a notebook that nobody watches, as `lib.runs.jupyter` starts it."""

from ipykernel.kernelapp import IPKernelApp


def main(given: list[str]) -> int:
    # widgets look for their kernel when they are imported, and in a fork they are imported already
    IPKernelApp.launch_instance([*given, "--IPKernelApp.extensions=ipywidgets"])
    return 0
