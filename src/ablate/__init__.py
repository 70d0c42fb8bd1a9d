"""Ablation studies of local vision operators.

`import ablate` alone is light: nothing here imports torch. `ablate.Study`, `ablate.runs` and `ablate.train`
are for notebooks and scripts, and are loaded when they are used. Start reading in `ablate.ops`
(the operator zoo along its two axes), then `ablate.hosts` (the networks that operators are
put into), `ablate.training`, `ablate.execution` (one run in its folder), `ablate.launch`
(a sweep, from requests to processes) and `ablate.results` (collection, statistics, report).
"""


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata  # 45 ms that no verb should wait for

    if name == "__version__":
        return metadata.version("ablate")
    if name in __all__:
        return getattr(import_module("ablate.api"), name)
    raise AttributeError(f"module 'ablate' has no attribute {name!r}")


__all__ = ["Study", "runs", "train"]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
