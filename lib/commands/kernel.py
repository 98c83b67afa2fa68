"""`python -m lib kernel -f FILE`: a kernel for a notebook that nobody watches, as `lib.runs.jupyter` starts it."""

from ipykernel.kernelapp import IPKernelApp


def main(given: list[str]) -> int:
    IPKernelApp.launch_instance(given)
    return 0
