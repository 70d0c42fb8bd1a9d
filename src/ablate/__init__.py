"""Ablation studies of local vision operators.

`import ablate` alone is light: nothing here imports torch. Start reading in `ablate.ops`
(the operator zoo along its two axes), then `ablate.hosts` (the networks that operators are
put into), `ablate.training`, `ablate.execution` (one run in its folder), `ablate.launch`
(a sweep, from requests to processes) and `ablate.results` (collection, statistics, report).
"""


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # 45 ms that no verb should wait for

        return version("ablate")
    raise AttributeError(f"module 'ablate' has no attribute {name!r}")
