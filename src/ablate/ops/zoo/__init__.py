"""The entries of the zoo: every module in this folder is imported and registers its operators.

`presets` are points of the one equation; an operator that is not one such sum gets a file of its
own with a class under `@register`.
"""
